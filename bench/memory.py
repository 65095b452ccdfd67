"""How much memory recordings take: peaks for 3 minutes, for 10 hours, and for 16 clients with 10 minutes each."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import psutil

from bench.clients import load
from tests.harness.recordings import make_long_recording
from tests.harness.report import arguments, make_song, print_report
from tests.harness.server import Server, running_server

_MIB = 1 << 20
_CLIENTS, _CLIENTS_MINUTES, _ROUNDS = 16, 10, 2


def peak_bytes(recording: Path, folder: Path) -> dict[str, float]:
    """The largest resident size of a fresh service that answers one recording."""
    folder.mkdir()
    limits = {"max_duration_s": 40_000, "max_windows": 40_000, "request_timeout_s": 3600}
    with running_server(folder, **limits) as server:
        ready = server.process.memory_info().rss
        response = server.post(recording, windows="none", timeout_s=3600)
        response.raise_for_status()
        peak = server.peak_bytes()
    return {
        "seconds": response.json()["track"]["duration_s"],
        "windows": response.json()["windows"]["count"],
        "ready_mib": round(ready / _MIB, 1),
        "peak_mib": round(peak / _MIB, 1),
    }


def peak_of_many(recording: Path, folder: Path) -> dict[str, float]:
    """The largest resident size of a fresh service, and of it with its decoders, while many ask at once."""
    folder.mkdir()
    with running_server(folder) as server:
        together = ready = _resident(server)
        done = threading.Event()

        def watch() -> None:
            nonlocal together
            while not done.wait(0.05):
                together = max(together, _resident(server))

        def ask() -> None:
            server.post(recording, windows="none", timeout_s=600).raise_for_status()

        watching = threading.Thread(target=watch)
        watching.start()
        load(ask, clients=_CLIENTS, answers=_CLIENTS * _ROUNDS)
        done.set()
        watching.join()
        peak = server.peak_bytes()
    return {
        "clients": _CLIENTS,
        "seconds": 60 * _CLIENTS_MINUTES,
        "ready_mib": round(ready / _MIB, 1),
        "peak_mib": round(peak / _MIB, 1),
        "peak_with_decoders_mib": round(together / _MIB, 1),
    }


def _resident(server: Server) -> int:
    """Bytes of the service and its children, what they share counted once: the proportional set size."""
    total = 0
    for process in (server.process, *server.process.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--hours", type=float, default=10.0, help="of the long recording")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song, short, long, many = (folder / f"{name}.mp3" for name in ("song", "short", "long", "many"))
        make_song(song)
        make_long_recording(song, short, 3)
        make_long_recording(song, long, round(options.hours * 60))
        make_long_recording(song, many, _CLIENTS_MINUTES)
        figures = {
            "short": peak_bytes(short, folder / "a"),
            "long": peak_bytes(long, folder / "b"),
            "many": peak_of_many(many, folder / "c"),
        }
        difference = figures["long"]["peak_mib"] - figures["short"]["peak_mib"]
        print_report("memory", {**figures, "difference_mib": round(difference, 1)}, record=options.record)


if __name__ == "__main__":
    main()
