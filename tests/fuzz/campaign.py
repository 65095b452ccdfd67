"""Send thousands of damaged files to the real service from several clients, and check every response.

python -m tests.fuzz.campaign --files 20000 --seed 1 --clients 4 --keep findings --record

Reproduce a violation with ``--seed SEED --first NUMBER --files 1``.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests.fuzz.corpus import Origin, corpus, fingerprint
from tests.fuzz.expectations import problems_of
from tests.fuzz.idle import IdleService
from tests.fuzz.sender import Check, Sender
from tests.fuzz.tally import Tally, Violation
from tests.harness.recordings import Recorder
from tests.harness.records import RELIABILITY_RECORDS, print_record, record_parser
from tests.harness.server import Server, running_server
from wholetrack.decoding.ffmpeg import find_ffmpeg

LIMITS = {"max_duration_s": 30.0, "max_requests": 16}
MAX_GROWTH_MIB = 64.0
"""How much the resident memory may grow between the first quarter of a campaign and its end.

It stays about 35 MiB above its initial value once every thread has processed its largest recording.
"""

_DECODER_KILLED = re.compile(r"\bffmpeg\b.*? by signal (\d+)")


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """What a campaign found.

    Attributes:
        files: Number of files sent.
        seed: Seed of all mutants.
        first: Number of the first mutant.
        clients: Number of clients.
        corpus: Fingerprint of the valid files.
        origins: Number of valid files.
        seconds: Time from the first request to the last response.
        median_s: Median latency, in seconds.
        slowest_s: Latency of the slowest request, in seconds.
        slowest: Number of its mutant.
        statuses: Number of responses by HTTP status; 0 for none at all.
        codes: Number of errors by code.
        warnings: Number of warnings by code.
        containers: Number of predictions by ffmpeg's name for the container.
        codecs: Number of predictions by ffmpeg's name for the codec.
        mutations: Number of files by mutation.
        decoders_killed: Numbers of the mutants whose decoder was killed by a signal, by signal.
        memory_first_quarter_mib: Resident memory of the idle service after a quarter of the files.
        memory_end_mib: Resident memory of the idle service after all files.
        violations: Everything that should not have happened.
    """

    files: int
    seed: int
    first: int
    clients: int
    corpus: str
    origins: int
    seconds: float
    median_s: float
    slowest_s: float
    slowest: int
    statuses: dict[int, int]
    codes: dict[str, int]
    warnings: dict[str, int]
    containers: dict[str, int]
    codecs: dict[str, int]
    mutations: dict[str, int]
    decoders_killed: dict[int, list[int]]
    memory_first_quarter_mib: float
    memory_end_mib: float
    violations: tuple[Violation, ...]


@dataclass(slots=True)
class _Progress:
    """What is known about a campaign besides its responses."""

    memory_mib: list[float]
    seconds: float
    decoders_killed: dict[int, list[int]]


def check_response(response: httpx.Response) -> Iterable[str]:
    """Yield what is wrong with a response of a service with :data:`LIMITS`."""
    return problems_of(response, max_duration_s=LIMITS["max_duration_s"])


def run_campaign(
    origins: Sequence[Origin],
    *,
    files: int,
    seed: int,
    clients: int,
    first: int = 0,
    timeout_s: float = 60.0,
    keep: Path | None = None,
    check: Check = check_response,
) -> CampaignResult:
    """Start the service, send it damaged files, and check every response and what is left over.

    Args:
        origins: The valid files that are damaged.
        files: Number of files to send.
        seed: Seed of the mutants.
        clients: Number of clients that send at the same time.
        first: Number of the first mutant.
        timeout_s: Time in seconds after which a request counts as hung.
        keep: Folder for the files that caused violations, and for the log of the service if there are any.
        check: Checks a response.
    """
    tally, progress = Tally(seed, keep), _Progress([], 0.0, {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sender = Sender(origins, seed, tally, check, timeout_s=timeout_s, clients=clients)
        try:
            with running_server(_new_folder(folder / "server"), **LIMITS) as server:
                _send_all(sender, server, range(first, first + files), progress)
        except (AssertionError, httpx.TransportError, psutil.Error) as error:
            if not tally.latencies_s:
                raise
            # The service ended, or left descriptors, a bad exit status or tracebacks behind.
            tally.report(f"the service did not end properly: {error!r}")
        if keep and tally.violations:
            shutil.copy(folder / "server" / "log.jsonl", keep)
    first_quarter, at_end = (*progress.memory_mib, 0.0, 0.0)[:2]
    if at_end - first_quarter > MAX_GROWTH_MIB:
        tally.report(f"the memory of the service grew from {first_quarter} to {at_end} MiB")
    slowest = max(tally.latencies_s, key=tally.latencies_s.__getitem__)
    return CampaignResult(
        files=files,
        seed=seed,
        first=first,
        clients=clients,
        corpus=fingerprint(origins),
        origins=len(origins),
        seconds=round(progress.seconds, 1),
        median_s=round(float(np.median(list(tally.latencies_s.values()))), 3),
        slowest_s=round(tally.latencies_s[slowest], 3),
        slowest=slowest,
        **tally.counts(),
        decoders_killed=progress.decoders_killed,
        memory_first_quarter_mib=first_quarter,
        memory_end_mib=at_end,
        violations=tuple(tally.violations),
    )


def _new_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _send_all(sender: Sender, server: Server, numbers: range, progress: _Progress) -> None:
    """Send all mutants, and check the idle service after a quarter of them and at the end."""
    service = IdleService(server, sender.origins[0], sender.tally)
    quarter = max(1, len(numbers) // 4)
    began = time.perf_counter()
    for part in (numbers[:quarter], numbers[quarter:]):
        sender.send(service.url, part)
        progress.seconds = time.perf_counter() - began
        service.check()
        progress.memory_mib.append(service.memory_mib())
    progress.decoders_killed = _decoders_killed(server, sender.tally)


def _decoders_killed(server: Server, tally: Tally) -> dict[int, list[int]]:
    """Return the numbers of the mutants whose decoder was killed, by signal, according to the service's log."""
    killed: dict[int, list[int]] = {}
    for line in map(json.loads, server.log.read_text().splitlines()):
        found = _DECODER_KILLED.search(line["message"])
        if found and line["request_id"] in tally.numbers:
            killed.setdefault(int(found[1]), []).append(tally.numbers[line["request_id"]])
    return killed


def main() -> None:
    """Run a campaign; the exit status is 1 if there are violations."""
    parser = record_parser(__doc__, folder=RELIABILITY_RECORDS)
    parser.add_argument("--files", type=int, default=1000, help="number of files to send")
    parser.add_argument("--seed", type=int, default=1, help="seed of the damage")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--clients", type=int, default=4, help="number of clients")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="seconds after which a request counts as hung")
    parser.add_argument("--keep", type=Path, help="folder for the files that caused violations")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        origins = corpus(Recorder(find_ffmpeg()), Path(folder))
    result = run_campaign(
        origins,
        files=options.files,
        seed=options.seed,
        clients=options.clients,
        first=options.first,
        timeout_s=options.timeout_s,
        keep=options.keep,
    )
    print_record("fuzz", asdict(result), folder=options.record)
    sys.exit(1 if result.violations else 0)


if __name__ == "__main__":
    main()
