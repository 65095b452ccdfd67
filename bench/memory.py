"""Peak memory for a 3-minute recording, for a 10-hour recording, and for 16 clients that send 10 minutes each."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil

from bench.clients import run_clients
from bench.records import benchmark_parser
from bench.song import make_song
from tests.harness.recordings import make_long_recording
from tests.harness.records import print_record
from tests.harness.sampling import sampling
from tests.harness.server import Server, running_server

_MIB = 1 << 20
_SAMPLE_S = 0.05
_CLIENTS, _CLIENT_MINUTES, _REQUESTS_PER_CLIENT = 16, 10, 2


def peak_of_one(recording: Path, folder: Path) -> dict[str, float]:
    """Return the peak resident size of a new service that processes one recording."""
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
    """Return the peak size of a new service, alone and with its decoders, while many clients send requests."""
    folder.mkdir()
    with running_server(folder) as server:
        ready = _with_decoders_bytes(server)

        def predict() -> None:
            server.post(recording, windows="none", timeout_s=600).raise_for_status()

        with sampling(lambda: _with_decoders_bytes(server), every_s=_SAMPLE_S) as samples:
            run_clients(predict, clients=_CLIENTS, requests=_CLIENTS * _REQUESTS_PER_CLIENT)
        peak = server.peak_bytes()
    return {
        "clients": _CLIENTS,
        "seconds": 60 * _CLIENT_MINUTES,
        "ready_mib": round(ready / _MIB, 1),
        "peak_mib": round(peak / _MIB, 1),
        "peak_with_decoders_mib": round(max(samples) / _MIB, 1),
    }


def _with_decoders_bytes(server: Server) -> int:
    """Return the proportional set size of the service and its children, which counts shared pages once."""
    total = 0
    for process in (server.process, *server.process.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--hours", type=float, default=10.0, help="length of the long recording")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song, short, long, many = (folder / f"{name}.mp3" for name in ("song", "short", "long", "many"))
        make_song(song)
        make_long_recording(song, short, 3)
        make_long_recording(song, long, round(options.hours * 60))
        make_long_recording(song, many, _CLIENT_MINUTES)
        figures = {
            "short": peak_of_one(short, folder / "a"),
            "long": peak_of_one(long, folder / "b"),
            "many": peak_of_many(many, folder / "c"),
        }
        difference = figures["long"]["peak_mib"] - figures["short"]["peak_mib"]
        print_record("memory", {**figures, "difference_mib": round(difference, 1)}, folder=options.record)


if __name__ == "__main__":
    main()
