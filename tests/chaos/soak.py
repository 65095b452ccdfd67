"""Send mixed traffic for a long time, and check whether memory, descriptors, processes or files grow.

python -m tests.chaos.soak --minutes 30 --record
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.chaos.recordings import make_noise, make_recordings
from tests.chaos.recovery import log_lines, predict
from tests.chaos.supervisor import Supervisor
from tests.chaos.traffic import Traffic
from tests.harness.records import RELIABILITY_RECORDS, print_record, record_parser
from tests.harness.sampling import sampling
from tests.harness.server import Server

_LONG_RECORDING_S = 900
_CLIENTS, _DISCONNECTING_CLIENTS, _SLOW_CLIENTS = 4, 2, 2
# Growth counts if it exceeds both its standard error by this factor and what allocators may keep.
_SIGMAS = 3.0
_NOISE_MIB = 8.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """What the service used at one moment.

    Attributes:
        at_s: Time since the beginning, in seconds.
        memory_mib: Resident memory, in MiB.
    """

    at_s: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class SoakResult:
    """What happened during the traffic.

    Attributes:
        minutes: Duration of the traffic.
        outcomes: Number of requests by outcome, see :class:`tests.chaos.traffic.TrafficResult`.
        memory_mib: Resident memory at the start, after a quarter, after half, and at the end.
        growth_mib: Growth of the memory over the second half, from a linear fit.
        growth_error_mib: Standard error of the growth.
        descriptors: Open descriptors of the idle service before and after.
        problems: Everything that should not have happened.
    """

    minutes: float
    outcomes: dict[str, int]
    memory_mib: tuple[float, ...]
    growth_mib: float
    growth_error_mib: float
    descriptors: tuple[int, int]
    problems: tuple[str, ...]


def soak(minutes: float) -> SoakResult:
    """Send valid, invalid, very long, slow and aborted requests for a number of minutes."""
    with tempfile.TemporaryDirectory() as name:
        folder, uploads = Path(name), Path(name) / "uploads"
        uploads.mkdir()
        contents = make_recordings(folder) | {"long": make_noise(_LONG_RECORDING_S)}
        with Supervisor.running(folder, uploads, client_timeout_s=5, max_requests=32) as supervisor:
            server = supervisor.server
            valid: dict[str, tuple[bytes, dict[str, Any] | None]] = {
                name: (content, predict(server, content)) for name, content in contents.items()
            }
            mixed = {"text": (b"La la la.\n" * 10_000, None), "truncated": (contents["flac"][:1000], None)} | valid
            before = server.descriptors()
            traffic = Traffic(server, mixed, clients=_CLIENTS, disconnecting=_DISCONNECTING_CLIENTS, slow=_SLOW_CLIENTS)
            began = time.monotonic()
            with (
                traffic.running() as result,
                sampling(lambda: _sample(server, time.monotonic() - began), every_s=1.0) as samples,
            ):
                time.sleep(60 * minutes)
            server.wait_until_clean()
            after = server.descriptors()
            problems = sorted(set(result.problems)) + log_lines(supervisor.log(), "Traceback", "CRITICAL")
            if supervisor.exit_statuses:
                problems.append(f"the process ended {len(supervisor.exit_statuses)} times")
    if after > before + 2:
        problems.append(f"{after} open descriptors, {before} before")
    growth, error = memory_growth([sample for sample in samples if sample.at_s > samples[-1].at_s / 2])
    if growth > max(_SIGMAS * error, _NOISE_MIB):
        problems.append(f"memory grew by {growth:.1f} MiB in the second half, with a standard error of {error:.1f} MiB")
    quarters = [samples[int(share * (len(samples) - 1))].memory_mib for share in (0, 0.25, 0.5, 1)]
    return SoakResult(
        minutes=minutes,
        outcomes=dict(result.outcomes.most_common()),
        memory_mib=tuple(round(quarter, 1) for quarter in quarters),
        growth_mib=round(growth, 1),
        growth_error_mib=round(error, 1),
        descriptors=(before, after),
        problems=tuple(problems),
    )


def _sample(server: Server, at_s: float) -> Sample:
    return Sample(at_s, server.process.memory_info().rss / _MIB)


def memory_growth(samples: list[Sample]) -> tuple[float, float]:
    """Return the growth of the memory over the samples and its standard error by least squares, in MiB."""
    seconds = np.array([sample.at_s for sample in samples])
    memory = np.array([sample.memory_mib for sample in samples])
    (slope, _), covariance = np.polyfit(seconds, memory, 1, cov=True)
    span = float(seconds[-1] - seconds[0])
    return float(slope) * span, float(np.sqrt(covariance[0, 0])) * span


def main() -> None:
    """Run the soak test; the exit status is 1 if there are problems."""
    parser = record_parser(__doc__, folder=RELIABILITY_RECORDS)
    parser.add_argument("--minutes", type=float, default=30.0, help="duration of the traffic")
    options = parser.parse_args()
    result = soak(options.minutes)
    print_record("soak", asdict(result), folder=options.record)
    if result.problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
