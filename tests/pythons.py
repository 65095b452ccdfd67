#!/usr/bin/env python3
"""Run the unit tests of the service on every supported Python that is installed, each in an environment of its own.

``make pythons`` runs this script. It looks for interpreters on PATH and in pyenv. The training package is left out,
because PyTorch is pinned to one version.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1]
ENVIRONMENTS = PROJECT / "build" / "pythons"


def supported() -> list[str]:
    """Return the versions that the package declares, such as ``3.11``."""
    classifiers = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["classifiers"]
    return [found[1] for line in classifiers if (found := re.search(r"Python :: (3\.\d+)$", line))]


def interpreter(version: str) -> Path | None:
    """Return a working Python of this version; None if there is none."""
    candidates = [shutil.which(f"python{version}")]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        candidates += map(str, sorted(Path(root).glob(f"versions/{version}.*/bin/python3")))
    for candidate in filter(None, candidates):
        command = [candidate, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.stdout.strip() == version:
            return Path(candidate)
    return None


def run_tests(version: str, python: Path) -> bool:
    """Install the service and run its unit tests; return whether they passed."""
    environment = ENVIRONMENTS / version
    if not (environment / "bin" / "pip").exists():
        subprocess.run([python, "-m", "venv", environment], check=True)
    bin_ = environment / "bin"
    pip = [str(bin_ / "pip"), "--disable-pip-version-check", "--quiet", "install", "-c", "constraints.txt"]
    subprocess.run([*pip, "-e", ".[cpu,test]"], cwd=PROJECT, check=True)
    pytest = [str(bin_ / "python"), "-m", "pytest", "-n", "2", "--dist", "loadfile", "tests/wholetrack"]
    return subprocess.run(pytest, cwd=PROJECT, check=False).returncode == 0


def main() -> int:
    """Run the tests on all versions.

    Returns:
        The exit status: 0 if the tests passed on every version that was found.
    """
    results = {}
    for version in supported():
        python = interpreter(version)
        results[version] = "not installed" if python is None else "passed" if run_tests(version, python) else "FAILED"
    for version, result in results.items():
        print(f"Python {version}: {result}")
    return int("FAILED" in results.values())


if __name__ == "__main__":
    sys.exit(main())
