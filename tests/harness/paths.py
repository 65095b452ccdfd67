"""Folders that tests, campaigns and benchmarks read from."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).parents[2]
"""The checkout."""

SHARED = Path(os.environ.get("WHOLETRACK_SHARED", PROJECT.parent / "shared"))
"""Folder with real recordings, which are not part of the repository; it may be missing."""
