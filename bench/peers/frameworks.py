"""Starting and stopping the serving frameworks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.harness.paths import PROJECT
from tests.harness.ports import free_port
from tests.harness.waiting import until

_START_S, _RESPONSE_S, _STOP_S = 120, 600, 20


@dataclass(frozen=True, slots=True)
class Framework:
    """A serving framework.

    Attributes:
        package: The pinned package.
        command: The command that starts it according to its documentation, with ``{port}`` for the port.
    """

    package: str
    command: tuple[str, ...]


FRAMEWORKS = {
    "litserve": Framework("litserve==0.2.19", ("python", "-m", "bench.peers.with_litserve", "{port}")),
    "bentoml": Framework(
        "bentoml==1.4.39", ("bentoml", "serve", "bench.peers.with_bentoml:Genres", "--port", "{port}")
    ),
    "ray": Framework("ray[serve]==2.60.0", ("python", "-m", "bench.peers.with_ray", "{port}")),
}


@contextmanager
def running_framework(
    framework: Framework, executables: Path, setup: str, log: Path, song: Path
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start a framework, yield a function that has it classify the song, and stop all its processes at the end.

    Args:
        framework: The framework.
        executables: Folder of executables of its environment.
        setup: One of :data:`bench.peers.SETUPS`.
        log: File for its output.
        song: The recording.
    """
    port = free_port()
    command = [part.format(port=port) for part in framework.command]
    command[0] = str(executables / command[0])
    variables = {"PATH": f"{executables}:{os.environ['PATH']}", "PEER_SETUP": setup, "BENTOML_DO_NOT_TRACK": "true"}
    content = song.read_bytes()

    def predict() -> dict[str, Any]:
        files = {"request": (song.name, content)}
        response = httpx.post(f"http://127.0.0.1:{port}/predict", files=files, timeout=_RESPONSE_S)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    with log.open("wb") as output:
        process = psutil.Popen(
            command, cwd=PROJECT, env=os.environ | variables, stdout=output, stderr=subprocess.STDOUT
        )
        family: list[psutil.Process] = [process]
        try:
            _wait_until_ready(predict, process, log)
            # Those whose parent ends first could not be found later.
            family += process.children(recursive=True)
            yield predict
        finally:
            with suppress(psutil.NoSuchProcess):
                family += process.children(recursive=True)
            _stop(family)


def _wait_until_ready(predict: Callable[[], object], process: psutil.Popen, log: Path) -> None:
    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            predict()
        except httpx.HTTPError:
            return False
        return True

    until(ready, seconds=_START_S, poll_s=0.5, context=log.read_text)


def _stop(family: list[psutil.Process]) -> None:
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(family, timeout=_STOP_S)[1]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
