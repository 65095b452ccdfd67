"""The CPU image: size, rebuild after a code change, time until ready, and throughput of several instances."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.clients import Load, Predict, run_clients
from bench.containers.decoders import compare_decoders
from bench.containers.images import BASE_IMAGE, CPU_IMAGE, build, size_mb
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from tests.harness.commands import run
from tests.harness.compose import PYTHON, ComposeProject, compose_project
from tests.harness.paths import PROJECT
from tests.harness.server import is_ready
from tests.harness.waiting import until
from wholetrack.settings import available_cpus

_COMPOSE_FILES = ("docker-compose.yml", "docker/scale.yml")
_COMPOSE_PORT, _READY_PORT = 18331, 18332
_CLIENTS = 4
_CHANGED_FILE = Path("service/wholetrack/pipeline.py")


def measure(rounds: int) -> dict[str, Any]:
    """Build the image and the proxy, and return all figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = folder / "song.mp3"
        make_song(song)
        with compose_project("wholetrack-bench", _COMPOSE_PORT, folder, *_COMPOSE_FILES) as project:
            project.compose("build", "wholetrack", "proxy")
            return {
                "image_mb": round(size_mb(CPU_IMAGE), 1),
                "base_mb": round(size_mb(BASE_IMAGE), 1),
                "rebuild_s": round(_rebuild_s(), 1),
                "ready_s": spread([_ready_s() for _ in range(2 * rounds)]),
                "decoders": compare_decoders(),
                "song_seconds": SONG_SECONDS,
                "cpus": available_cpus(),
                "throughput": _throughput(project, song.read_bytes(), rounds),
            }


def _rebuild_s() -> float:
    """Return the duration of a build after a code change, with all earlier layers cached, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        files = run("git", "ls-files").splitlines()
        for name in filter(lambda name: (PROJECT / name).is_file(), files):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, copy / name)
        changed = copy / _CHANGED_FILE
        changed.write_text(f"{changed.read_text()}\n# {time.time()}\n")
        began = time.perf_counter()
        build("wholetrack-test:rebuilt", str(copy), "--build-arg", f"PYTHON_VERSION={PYTHON}")
        return time.perf_counter() - began


def _ready_s() -> float:
    """Return the time from ``docker run`` until the service reports that it is ready, in seconds."""
    began = time.perf_counter()
    name = run("docker", "run", "--detach", "--rm", "--publish", f"127.0.0.1:{_READY_PORT}:8000", CPU_IMAGE).strip()
    try:
        until(lambda: is_ready(f"http://127.0.0.1:{_READY_PORT}"), seconds=60, poll_s=0.01)
        return time.perf_counter() - began
    finally:
        subprocess.run(["docker", "kill", name], check=True, capture_output=True)


def _throughput(project: ComposeProject, song: bytes, rounds: int) -> dict[str, Any]:
    """Measure one and two instances behind the proxy alternately, and return their throughput and its ratio."""
    loads: dict[int, list[Load]] = {1: [], 2: []}
    for _ in range(rounds):
        for instances, measured in loads.items():
            project.up("--scale", f"wholetrack={instances}", "proxy")
            predict = _requests(project, song)
            for _ in range(2 * instances):
                predict()
            measured.append(run_clients(predict, clients=_CLIENTS, requests=6 * _CLIENTS))
    return {
        "clients": _CLIENTS,
        "by_instances": {str(n): [load.as_dict() for load in measured] for n, measured in loads.items()},
        "two_over_one": spread([two.per_second / one.per_second for one, two in zip(*loads.values(), strict=True)]),
    }


def _requests(project: ComposeProject, song: bytes) -> Predict:
    def predict() -> None:
        project.post(song, windows="none").raise_for_status()

    return predict
