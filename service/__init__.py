"""wholetrack: a REST service that hears a whole recording and says what genre it is, when, and how sure it is."""

__version__ = "0.1.0"
