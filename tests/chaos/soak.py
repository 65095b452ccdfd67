"""Mixed traffic for a long time, and whether anything grows: memory, descriptors, processes, files.

``python -m tests.chaos.soak --minutes 30 --record``
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.chaos.campaign import RELIABILITY, answer_of, recordings
from tests.chaos.supervisor import Supervisor
from tests.chaos.traffic import Traffic
from tests.harness.recordings import wav_bytes
from tests.harness.report import arguments, print_report
from tests.harness.server import Server

_RATE = 22050
_HUGE_S = 900
_CLIENTS, _LEAVERS, _DAWDLERS = 4, 2, 2
# Growth is what the line rises by, if that is beyond its own error and beyond what allocators keep.
_SIGMAS = 3.0
_NOISE_MIB = 8.0


@dataclass(frozen=True, slots=True)
class Look:
    """What the service had at one moment, in seconds from the beginning."""

    at_s: float
    memory_mib: float
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a long time did.

    Attributes:
        minutes: of traffic.
        outcomes: answers by code; ``left`` and ``dawdled`` for clients who did.
        memory_mib: resident at the start, after a quarter, at half, and at the end.
        growth_mib: by which memory grew over the second half, by the line that fits it best, in MiB.
        growth_error_mib: standard error of that.
        descriptors: the most at rest before, and after.
        wrong: what must not be; empty if all is well.
    """

    minutes: float
    outcomes: dict[str, int]
    memory_mib: tuple[float, ...]
    growth_mib: float
    growth_error_mib: float
    descriptors: tuple[int, int]
    wrong: tuple[str, ...]


def soak(minutes: float) -> Soaked:
    """Let good, bad, huge, slow and aborted requests come for so many minutes."""
    with tempfile.TemporaryDirectory() as name:
        folder, disk = Path(name), Path(name) / "disk"
        disk.mkdir()
        contents = recordings(folder)
        rng = np.random.default_rng(0)
        contents["huge"] = wav_bytes((0.1 * rng.standard_normal(_HUGE_S * _RATE)).astype(np.float32), _RATE)
        with Supervisor.running(folder, disk, client_timeout_s=5, max_requests=32) as supervisor:
            server = supervisor.server
            heard: dict[str, tuple[bytes, dict[str, object] | None]] = {
                kind: (content, answer_of(server, content)) for kind, content in contents.items()
            }
            mixed = {"text": (b"La la la.\n" * 10_000, None), "cut": (contents["flac"][:1000], None)} | heard
            before = server.descriptors()
            with (
                Traffic(server, mixed, clients=_CLIENTS, leavers=_LEAVERS, dawdlers=_DAWDLERS).flowing() as seen,
                _looking(server) as looks,
            ):
                time.sleep(60 * minutes)
            server.wait_until_clean()
            wrong = sorted(set(seen.wrong))
            after = server.descriptors()
            if after > before + 2:
                wrong.append(f"{after} descriptors, {before} before")
            words = supervisor.words().splitlines()
            wrong += [line[-2000:] for line in words if "Traceback" in line or "CRITICAL" in line][:3]
            if supervisor.ended:
                wrong.append(f"the process ended {len(supervisor.ended)} times")
    growth, error = growth_of([look for look in looks if look.at_s > looks[-1].at_s / 2])
    if growth > max(_SIGMAS * error, _NOISE_MIB):
        wrong.append(f"memory grew by {growth:.1f} MiB in the second half, with an error of {error:.1f}")
    quarters = [looks[int(share * (len(looks) - 1))].memory_mib for share in (0, 0.25, 0.5, 1)]
    return Soaked(
        minutes=minutes,
        outcomes=dict(seen.outcomes.most_common()),
        memory_mib=tuple(round(quarter, 1) for quarter in quarters),
        growth_mib=round(growth, 1),
        growth_error_mib=round(error, 1),
        descriptors=(before, after),
        wrong=tuple(wrong),
    )


def growth_of(looks: list[Look]) -> tuple[float, float]:
    """By how much memory grew over these looks, and the standard error of that, by least squares."""
    seconds = np.array([look.at_s for look in looks])
    memory = np.array([look.memory_mib for look in looks])
    (slope, _), covariance = np.polyfit(seconds, memory, 1, cov=True)
    span = float(seconds[-1] - seconds[0])
    return float(slope) * span, float(np.sqrt(covariance[0, 0])) * span


@contextmanager
def _looking(server: Server) -> Iterator[list[Look]]:
    looks: list[Look] = []
    stopping = threading.Event()
    began = time.monotonic()

    def look() -> None:
        while not stopping.is_set():
            process = server.process
            memory = process.memory_info().rss / (1 << 20)
            looks.append(Look(time.monotonic() - began, memory, server.descriptors(), process.num_threads()))
            stopping.wait(1.0)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        stopping.set()
        thread.join()


def main() -> None:
    """Run the soak."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    soaked = soak(options.minutes)
    print_report("soak", asdict(soaked), record=options.record, folder=RELIABILITY)
    if soaked.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
