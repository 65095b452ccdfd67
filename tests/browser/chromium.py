"""Finding the browser that drives the page."""

from __future__ import annotations

import os
import shutil


def find_chromium() -> str | None:
    """Return the path of Chromium: that in CHROMIUM, or the one on PATH; None if there is none."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
