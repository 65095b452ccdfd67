"""The GPU image: its size, its largest packages, and its error message if there is no GPU."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from bench.containers.images import build, run_in, size_mb
from tests.harness.compose import PYTHON

_GPU_IMAGE = "wholetrack:gpu"
_PACKAGES = """
import importlib.metadata, json
packages = {}
for package in importlib.metadata.distributions(path=["/opt/wholetrack/lib/python%s/site-packages"]):
    files = [path for path in map(package.locate_file, package.files) if path.is_file()]
    packages[f"{package.name} {package.version}"] = round(sum(path.stat().st_size for path in files) / 1e6, 1)
print(json.dumps(dict(sorted(packages.items(), key=lambda each: -each[1])[:8])))
"""


def measure() -> dict[str, Any]:
    """Build the image and return all figures."""
    began = time.perf_counter()
    build(_GPU_IMAGE, ".", "--target", "gpu", "--build-arg", f"PYTHON_VERSION={PYTHON}")
    build_s = time.perf_counter() - began
    command = ["docker", "run", "--rm", "--env", "WHOLETRACK_DEVICE=cuda", _GPU_IMAGE, "serve"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    return {
        "image_mb": round(size_mb(_GPU_IMAGE), 1),
        "build_s": round(build_s, 1),
        "packages_mb": json.loads(run_in(_GPU_IMAGE, _PACKAGES.replace("%s", PYTHON))),
        "without_a_gpu": {"exit_status": refused.returncode, "message": refused.stderr.splitlines()[-1]},
    }
