"""The image's ffmpeg compared with two that it could have used instead."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from bench.containers.images import BASE_IMAGE, CPU_IMAGE, build, run_in, size_mb
from tests.harness.commands import run

_ALTERNATIVE_IMAGE = "wholetrack-test:ffmpeg"
# How each alternative is installed in an image based on the same base image.
_ALTERNATIVES = {
    "Debian package": "RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && apt-get clean "
    "&& rm -rf /var/lib/apt/lists/*",
    "static build of imageio-ffmpeg": "RUN pip install --no-cache-dir --no-deps imageio-ffmpeg "
    "&& ln -s $(python -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())') /usr/local/bin/ffmpeg",
}
_INSPECT = """
import json, re, subprocess, time
def ffmpeg(option):
    return subprocess.run(["ffmpeg", "-hide_banner", option], capture_output=True, text=True).stdout
seconds = []
for _ in range(21):
    began = time.perf_counter()
    ffmpeg("-version")
    seconds.append(time.perf_counter() - began)
start_ms = round(1e3 * sorted(seconds[1:])[10], 1)
lists = {kind: re.split("^ -+$", ffmpeg("-" + kind), flags=re.MULTILINE)[-1] for kind in ("demuxers", "decoders")}
counts = {kind: text.strip().count("\\n") + 1 for kind, text in lists.items()}
print(json.dumps({"version": ffmpeg("-version").split()[2], "start_ms": start_ms, **counts}))
"""


def compare_decoders() -> list[dict[str, Any]]:
    """Return version, start-up time, number of demuxers and decoders, and size of every ffmpeg."""
    rows = [{"ffmpeg": "built for the service", **_inspect(CPU_IMAGE), "mb": _built_mb()}]
    with tempfile.TemporaryDirectory() as folder:
        for name, instruction in _ALTERNATIVES.items():
            (Path(folder) / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\n{instruction}\n")
            build(_ALTERNATIVE_IMAGE, folder)
            mb = round(size_mb(_ALTERNATIVE_IMAGE) - size_mb(BASE_IMAGE), 1)
            rows.append({"ffmpeg": name, **_inspect(_ALTERNATIVE_IMAGE), "mb": mb})
    return rows


def _inspect(image: str) -> dict[str, Any]:
    inspected: dict[str, Any] = json.loads(run_in(image, _INSPECT))
    return inspected


def _built_mb() -> float:
    """Return the size of the image's ffmpeg together with libsoxr, in megabytes."""
    command = "du --bytes --total --dereference /opt/ffmpeg $(ldconfig -p | grep -o '/.*libsoxr.so.0$') | tail -n 1"
    total = run("docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", CPU_IMAGE, "-c", command)
    return round(int(total.split()[0]) / 1e6, 1)
