"""Environments of their own for what the service is compared with, made when they are first needed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.harness.server import PROJECT

ENVIRONMENTS = PROJECT / "build" / "peers"
# What computes must be the same on both sides.
_SAME = ("imageio-ffmpeg", "numpy", "onnxruntime")


def environment(folder: Path, package: str) -> Path:
    """The folder of the programs of a package, pinned, installed together with the service."""
    programs, done = folder / "bin", folder / ".done"
    wanted = [package, *(f"{name}=={version(name)}" for name in _SAME)]
    if not done.exists() or done.read_text() != str(wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted, "-e", ".[cpu]"], cwd=PROJECT, check=True)
        done.write_text(str(wanted))
    return programs
