"""The errors that end a run."""

from __future__ import annotations


class CatalogueError(Exception):
    """The run cannot begin like this. The message says what to change, in a sentence."""


class ResumableError(Exception):
    """The run cannot go on, because a store or a device has failed. The same command continues it.

    The message says why, in a sentence.
    """


class StoreError(ResumableError):
    """A store has failed, although its library has repeated the request."""
