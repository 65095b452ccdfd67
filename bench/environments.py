"""Virtual environments for what the service is compared with, created when they are first needed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.harness.paths import PROJECT

ENVIRONMENTS = PROJECT / "build" / "peers"
# Both sides of a comparison must compute with the same versions.
_SHARED_PACKAGES = ("imageio-ffmpeg", "numpy", "onnxruntime")


def environment(folder: Path, package: str) -> Path:
    """Return the folder of executables of an environment with the service and one more package.

    Args:
        folder: Folder of the environment, which is created or replaced if it does not have these packages.
        package: The pinned package.
    """
    executables, done = folder / "bin", folder / ".done"
    wanted = [package, *(f"{name}=={version(name)}" for name in _SHARED_PACKAGES)]
    if not done.exists() or done.read_text() != str(wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(executables / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted, "-e", ".[cpu]"], cwd=PROJECT, check=True)
        done.write_text(str(wanted))
    return executables
