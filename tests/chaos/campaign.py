"""Inject one fault after another into a service under load, and check its responses, leftovers and recovery.

python -m tests.chaos.campaign --seconds 60 --record
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.recordings import make_recordings
from tests.chaos.recovery import Resources, leftovers, log_lines, predict, wrong_predictions
from tests.chaos.supervisor import Supervisor
from tests.chaos.traffic import Traffic
from tests.harness.records import RELIABILITY_RECORDS, print_record, record_parser

_CLIENTS = 6
_WARM_UP_S = 10.0
_SMALL_DISK_SIZE = "1m"


@dataclass(frozen=True, slots=True)
class FaultResult:
    """What a fault did.

    Attributes:
        seconds: How long it was injected.
        injections: How often it was injected; 0 if it was present all the time.
        outcomes: Number of requests by outcome, see :class:`tests.chaos.traffic.TrafficResult`.
        restarts: How often the process was restarted.
        slowest_s: Latency of the slowest request, in seconds.
        recovery_s: Time from the end of the fault until the service is ready and predicts correctly, in seconds.
        memory_mib: Growth of the resident memory, in MiB.
        problems: Everything that should not have happened.
    """

    seconds: float
    injections: int
    outcomes: dict[str, int]
    restarts: int
    slowest_s: float
    recovery_s: float
    memory_mib: float
    problems: tuple[str, ...]


def run_fault(fault: Fault, *, seconds: float, recordings: Mapping[str, bytes]) -> FaultResult:
    """Start a service, let clients send requests, inject a fault, and check what happens.

    Args:
        fault: The fault.
        seconds: How long to inject it.
        recordings: What the clients post, by name.

    Raises:
        PermissionError: If the fault needs a file system that this process may not mount.
    """
    with tempfile.TemporaryDirectory() as name, _upload_folder(Path(name), small=fault.small_disk) as uploads:
        settings = {"request_timeout_s": 10, "max_requests": 16} | dict(fault.settings)
        with Supervisor.running(Path(name), uploads, **settings) as supervisor:
            expected = {name: (content, predict(supervisor.server, content)) for name, content in recordings.items()}
            with Traffic(supervisor.server, expected, clients=_CLIENTS).running():
                time.sleep(min(seconds, _WARM_UP_S))
            before = Resources.of(supervisor.server)
            traffic = Traffic(supervisor.server, expected, clients=_CLIENTS, disconnecting=fault.disconnecting_clients)
            problems, injections = list[str](), 0
            with traffic.running() as result:
                try:
                    injections = fault.inject(supervisor, seconds)
                except AssertionError as error:
                    problems.append(str(error))
                fault_ended = time.monotonic()
                supervisor.wait_until_ready()
            problems += wrong_predictions(supervisor.server, expected)
            recovery_s = time.monotonic() - fault_ended
            problems += sorted(set(result.problems)) + _unexpected_outcomes(fault, result.outcomes)
            problems += leftovers(supervisor.server, before)
            growth_mib = Resources.of(supervisor.server).memory_mib - before.memory_mib
            if growth_mib > fault.max_growth_mib:
                problems.append(f"memory grew by {growth_mib:.0f} MiB")
            problems += log_lines(supervisor.log(), "Traceback")
            restarts = len(supervisor.exit_statuses)
    return FaultResult(
        seconds=seconds,
        injections=injections,
        outcomes=dict(result.outcomes.most_common()),
        restarts=restarts,
        slowest_s=round(result.slowest_s, 2),
        recovery_s=round(recovery_s, 2),
        memory_mib=round(growth_mib, 1),
        problems=tuple(problems),
    )


def _unexpected_outcomes(fault: Fault, outcomes: Mapping[str, int]) -> list[str]:
    allowed = {"ok", "disconnected"} | fault.expected_codes
    if fault.loses_connections:
        allowed |= {"connection_lost", "refused"}
    unexpected = [f"{count} times {outcome}" for outcome, count in outcomes.items() if outcome not in allowed]
    return unexpected if outcomes.get("ok") else [*unexpected, "no request succeeded"]


@contextmanager
def _upload_folder(folder: Path, *, small: bool) -> Iterator[Path]:
    """Yield a new folder for uploads, on a file system of 1 MiB if it is to be small."""
    uploads = folder / "uploads"
    uploads.mkdir()
    if not small:
        yield uploads
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK_SIZE}", "tmpfs", uploads], capture_output=True, check=False
    )
    if mounted.returncode:
        raise PermissionError("mounting a small file system is not permitted")
    try:
        yield uploads
    finally:
        subprocess.run(["umount", "--lazy", uploads], check=True)


def main() -> None:
    """Run the campaign; the exit status is 1 if there are problems."""
    parser = record_parser(__doc__, folder=RELIABILITY_RECORDS)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each fault is injected")
    parser.add_argument("--only", choices=FAULTS, help="inject only this fault")
    options = parser.parse_args()
    faults = {options.only: FAULTS[options.only]} if options.only else FAULTS
    with tempfile.TemporaryDirectory() as folder:
        recordings = make_recordings(Path(folder))
        results = {
            name: run_fault(fault, seconds=options.seconds, recordings=recordings) for name, fault in faults.items()
        }
    figures = {"clients": _CLIENTS, "faults": {name: asdict(result) for name, result in results.items()}}
    print_record("chaos", figures, folder=options.record)
    if any(result.problems for result in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
