"""A recording in the list of a store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A recording, as the store lists it.

    Attributes:
        path: The path of a local file, which may have bytes that are not UTF-8, or the complete URL of any other.
        size_bytes: Its size; None if the store does not say.
        etag: What an object store changes together with the content; None for a file system.
        modified: Time of the last change; None if the store does not say.
    """

    path: str
    size_bytes: int | None
    etag: str | None
    modified: datetime | None

    @property
    def text(self) -> str:
        """The path as valid Unicode."""
        return valid_text(self.path)


def valid_text(path: str) -> str:
    r"""Return a path as valid Unicode: bytes that are not UTF-8 are written as ``\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
