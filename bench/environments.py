"""Environments of their own for what the service is compared with, made when they are first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.running import PROJECT

ENVIRONMENTS = PROJECT / "build" / "peers"


def environment(folder: Path, package: str) -> Path:
    """The folder of the programs of a package, pinned, installed together with the service."""
    programs, done = folder / "bin", folder / ".done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, package, "-e", ".[cpu]"], cwd=PROJECT, check=True)
        done.touch()
    return programs
