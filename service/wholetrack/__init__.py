"""wholetrack: a REST service that hears a whole recording and says what genre it is, when, and how sure it is."""

import os

__version__ = "0.2.0"

# Since 1.29 onnxruntime reports sessions and models to its makers, unless it finds this when it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
