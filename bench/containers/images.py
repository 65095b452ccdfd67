"""Building images and reading their sizes."""

from __future__ import annotations

import json

from tests.harness.commands import run
from tests.harness.compose import PYTHON

CPU_IMAGE = "wholetrack:cpu"
BASE_IMAGE = f"python:{PYTHON}-slim"


def build(tag: str, folder: str, *arguments: str) -> None:
    """Build an image from the Dockerfile in a folder."""
    run("docker", "build", "--quiet", "--tag", tag, *arguments, folder)


def size_mb(image: str) -> float:
    """Return the unpacked size of an image in megabytes."""
    return float(json.loads(run("docker", "image", "inspect", image))[0]["Size"]) / 1e6


def run_in(image: str, program: str) -> str:
    """Run a Python program in an image and return its standard output."""
    return run("docker", "run", "--rm", "--entrypoint", "python", image, "-c", program)
