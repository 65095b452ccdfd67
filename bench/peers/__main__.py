"""The service beside serving frameworks with the same work: throughput and waiting times at 1, 4 and 16 clients.

Each framework lives in an environment of its own, made when it is first needed. It and the service are measured by
turns, round after round, one running at a time, so that ratios hold where the machine's speed drifts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.clients import Load, load
from bench.environments import ENVIRONMENTS, environment
from bench.peers import SETUPS
from tests.harness.report import SONG_SECONDS, arguments, make_song, print_report, spread
from tests.harness.server import PROJECT, running_server

_CLIENTS = (1, 4, 16)
_ANSWERS = {1: 8, 4: 16, 16: 32}
_WARM_UP = 10
_OWN = "service"
_START_S, _ANSWER_S = 120, 600
_SAME_SHARE = 1e-3


@dataclass(frozen=True, slots=True)
class Peer:
    """A framework: its package, pinned, and how its documentation starts it on a port."""

    package: str
    command: tuple[str, ...]


PEERS = {
    "litserve": Peer("litserve==0.2.19", ("python", "-m", "bench.peers.with_litserve", "{port}")),
    "bentoml": Peer("bentoml==1.4.39", ("bentoml", "serve", "bench.peers.with_bentoml:Genres", "--port", "{port}")),
    "ray": Peer("ray[serve]==2.60.0", ("python", "-m", "bench.peers.with_ray", "{port}")),
}


@contextmanager
def running(programs: Path, peer: Peer, setup: str, log: Path, song: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start a framework, give a function that has it answer the song, and stop it and all its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.format(port=port) for part in peer.command]
    command[0] = str(programs / command[0])
    variables = {"PATH": f"{programs}:{os.environ['PATH']}", "PEER_SETUP": setup, "BENTOML_DO_NOT_TRACK": "true"}
    content = song.read_bytes()

    def ask() -> dict[str, Any]:
        files = {"request": (song.name, content)}
        response = httpx.post(f"http://127.0.0.1:{port}/predict", files=files, timeout=_ANSWER_S)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    with log.open("wb") as words:
        process = psutil.Popen(command, cwd=PROJECT, env=os.environ | variables, stdout=words, stderr=subprocess.STDOUT)
        family: list[psutil.Process] = [process]
        try:
            _wait_for(ask, process, log)
            family += process.children(recursive=True)
            yield ask
        finally:
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.terminate()
            for member in psutil.wait_procs(family, timeout=20)[1]:
                with suppress(psutil.NoSuchProcess):
                    member.kill()


def _wait_for(ask: Callable[[], object], process: psutil.Popen, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        assert process.poll() is None, log.read_text()
        try:
            ask()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        else:
            return


def loads(ask: Callable[[], object]) -> dict[int, Load]:
    """What each number of clients saw, after every one had a chance to warm up and to learn its batches."""
    for clients in _CLIENTS:
        load(ask, clients=clients, answers=_WARM_UP)
    return {clients: load(ask, clients=clients, answers=_ANSWERS[clients]) for clients in _CLIENTS}


def measure(folder: Path, programs: Path, peer: Peer, song: Path, *, own_first: bool) -> dict[str, dict[int, Load]]:
    """One round of the service and of both set-ups, each alone; all must give the same shares."""
    folder.mkdir()
    found: dict[str, dict[int, Load]] = {}
    expected: dict[str, float] = {}

    def measure_own() -> None:
        with running_server(folder) as server:

            def ask() -> dict[str, Any]:
                response = server.post(song, windows="none", top_k=10)
                response.raise_for_status()
                answer: dict[str, Any] = response.json()
                return answer

            found[_OWN] = loads(ask)
            expected.update((each["genre"], each["share"]) for each in ask()["prediction"]["summed_score"]["top_k"])

    if own_first:
        measure_own()
    answers = []
    for setup in SETUPS:
        with running(programs, peer, setup, folder / f"{setup}.log", song) as ask_peer:
            answers.append(ask_peer()["summed_score"])
            found[setup] = loads(ask_peer)
    if not own_first:
        measure_own()
    for answer in answers:
        assert all(abs(answer[genre] - share) < _SAME_SHARE for genre, share in expected.items()), (answer, expected)
    return found


def compared(rounds: list[dict[str, dict[int, Load]]], setup: str) -> dict[str, Any]:
    """The service's figures over those of a framework set up in one way, by number of clients."""

    def ratios(figure: Callable[[Load], float]) -> dict[str, Any]:
        return {str(n): spread([figure(one[_OWN][n]) / figure(one[setup][n]) for one in rounds]) for n in _CLIENTS}

    return {
        "loads": [[one[setup][n].as_dict() for n in _CLIENTS] for one in rounds],
        "throughput_ratio": ratios(lambda load: load.per_second),
        "median_ratio": ratios(lambda load: load.percentile_s(50)),
        "p95_ratio": ratios(lambda load: load.percentile_s(95)),
    }


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    options = parser.parse_args()
    figures: dict[str, Any] = {"song_seconds": SONG_SECONDS, "peers": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = folder / "song.mp3"
        make_song(song)
        for key in options.peers:
            peer = PEERS[key]
            programs = environment(options.environments / key, peer.package)
            rounds = [
                measure(folder / f"{key}-{i}", programs, peer, song, own_first=i % 2 == 0)
                for i in range(options.rounds)
            ]
            figures["peers"][key] = {
                "package": peer.package,
                "service": [[one[_OWN][n].as_dict() for n in _CLIENTS] for one in rounds],
                "setups": {setup: compared(rounds, setup) for setup in SETUPS},
            }
    print_report("peers", figures, record=options.record)


if __name__ == "__main__":
    main()
