"""Every fault in turn, and after each: answers right or errors of the table, nothing hung, nothing left, ready again.

``python -m tests.chaos.campaign --seconds 60 --record``
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
from typing import Any

import numpy as np

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.supervisor import Supervisor
from tests.chaos.traffic import HANG_S, Recordings, Traffic
from tests.harness.recordings import wav_bytes
from tests.harness.report import RECORDED, arguments, print_report
from tests.harness.server import Server
from wholetrack.decoding.ffmpeg import find_ffmpeg

RELIABILITY = RECORDED.parent / "reliability"
_CLIENTS = 6
_RATE = 22050
_SMALL_DISK = "1m"
_CALM_S = 20.0
_WARM_S = 10.0


@dataclass(frozen=True, slots=True)
class Survived:
    """What a fault did.

    Attributes:
        seconds: for which it lasted.
        hits: how often it was done; 0 for what lasts.
        outcomes: answers by code; ``ok``, ``refused``, ``cut`` and ``left`` among them.
        restarts: of the process.
        slowest_s: the slowest answer, in seconds.
        ready_again_s: from the end of the fault until it was ready and answered rightly, in seconds.
        memory_mib: resident at the end, beyond what it was before.
        wrong: what must not be; empty if all is well.
    """

    seconds: float
    hits: int
    outcomes: dict[str, int]
    restarts: int
    slowest_s: float
    ready_again_s: float
    memory_mib: float
    wrong: tuple[str, ...]


def recordings(folder: Path) -> dict[str, bytes]:
    """Short and long ones, as wav, flac, mp3 and ogg, made of arithmetic."""
    rng = np.random.default_rng(1)
    made = {}
    for seconds, suffix in ((4, "wav"), (9, "flac"), (20, "mp3"), (40, "ogg")):
        time_ = np.arange(seconds * _RATE) / _RATE
        tune = 0.3 * np.sin(2 * np.pi * np.cumsum(220 + 200 * np.sin(time_)) / _RATE)
        source, target = folder / f"{seconds}-source.wav", folder / f"{seconds}.{suffix}"
        source.write_bytes(wav_bytes((tune + 0.05 * rng.standard_normal(len(tune))).astype(np.float32), _RATE))
        subprocess.run([find_ffmpeg().path, "-v", "error", "-nostdin", "-i", source, target], check=True)
        made[suffix] = target.read_bytes()
    return made


def survive(fault: Fault, *, seconds: float, contents: Mapping[str, bytes]) -> Survived:
    """Start a service, let clients ask it, do the fault, and see what is left.

    Raises:
        PermissionError: if this machine may not be treated so.
    """
    with tempfile.TemporaryDirectory() as name, _upload_disk(Path(name), small=fault.small_disk) as disk:
        settings = {"request_timeout_s": 10, "max_requests": 16} | dict(fault.settings)
        with Supervisor.running(Path(name), disk, **settings) as supervisor:
            heard = {kind: (content, answer_of(supervisor.server, content)) for kind, content in contents.items()}
            with Traffic(supervisor.server, heard, clients=_CLIENTS).flowing():
                time.sleep(min(seconds, _WARM_S))
            before = _at_rest(supervisor.server)
            traffic = Traffic(supervisor.server, heard, clients=_CLIENTS, leavers=fault.leavers)
            wrong, hits = [], 0
            with traffic.flowing() as seen:
                try:
                    hits = fault.act(supervisor, seconds)
                except AssertionError as error:
                    wrong.append(str(error))
                began = time.monotonic()
                supervisor.wait_until_ready()
            wrong += _not_as_before(supervisor, heard)
            ready_again_s = time.monotonic() - began
            wrong += sorted(set(seen.wrong)) + _unexpected(fault, seen.outcomes)
            memory_mib, left = _left_over(supervisor.server, before, fault.memory_mib)
            wrong += left
            wrong += [line[-2000:] for line in supervisor.words().splitlines() if "Traceback" in line][:3]
            restarts = len(supervisor.ended)
    return Survived(
        seconds=seconds,
        hits=hits,
        outcomes=dict(seen.outcomes.most_common()),
        restarts=restarts,
        slowest_s=round(seen.slowest_s, 2),
        ready_again_s=round(ready_again_s, 2),
        memory_mib=round(memory_mib, 1),
        wrong=tuple(wrong),
    )


def answer_of(server: Server, content: bytes) -> dict[str, Any]:
    """What the service says of a recording in peace."""
    response = server.post(content, timeout_s=HANG_S)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


@dataclass(frozen=True, slots=True)
class _Rest:
    descriptors: int
    memory_bytes: int


def _at_rest(server: Server) -> _Rest:
    return _Rest(server.descriptors(), server.process.memory_info().rss)


def _not_as_before(supervisor: Supervisor, heard: Recordings) -> list[str]:
    """Whether it answers rightly once more, soon after the fault."""
    deadline = time.monotonic() + _CALM_S
    problem = ""
    while time.monotonic() < deadline:
        try:
            again = {kind: answer_of(supervisor.server, content) for kind, (content, _) in heard.items()}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is wrong
            problem = f"after the fault: {error}"
            time.sleep(0.2)
            continue
        close = [
            np.allclose(again[kind]["windows"]["probabilities"], right["windows"]["probabilities"], atol=1e-4)
            for kind, (_, right) in heard.items()
            if right
        ]
        return [] if all(close) else ["other answers than before the fault"]
    return [problem]


def _unexpected(fault: Fault, outcomes: Mapping[str, int]) -> list[str]:
    allowed = {"ok", "left"} | fault.expected
    if fault.may_be_cut:
        allowed |= {"cut", "refused"}
    found = [f"{count} times {code}" for code, count in outcomes.items() if code not in allowed]
    return found if outcomes.get("ok") else [*found, "nothing was answered"]


def _left_over(server: Server, before: _Rest, most_mib: float) -> tuple[float, list[str]]:
    """Memory beyond that before in MiB, and what should be gone once all is calm."""
    deadline, wrong = time.monotonic() + _CALM_S, list[str]()
    while time.monotonic() < deadline:
        left, descriptors = server.leftovers(), server.descriptors()
        wrong = [f"{len(found)} {name} left" for name, found in left.items() if found]
        if descriptors > before.descriptors + 2:
            wrong.append(f"{descriptors} descriptors, {before.descriptors} before")
        if not wrong:
            break
        time.sleep(0.1)
    memory_mib = (server.process.memory_info().rss - before.memory_bytes) / (1 << 20)
    if memory_mib > most_mib:
        wrong.append(f"{memory_mib:.0f} MiB more memory than before")
    return memory_mib, wrong


@contextmanager
def _upload_disk(folder: Path, *, small: bool) -> Iterator[Path]:
    disk = folder / "uploads"
    disk.mkdir()
    if not small:
        yield disk
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK}", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        raise PermissionError("a small disk cannot be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def main() -> None:
    """Run the campaign."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for which each fault lasts")
    parser.add_argument("--only", choices=FAULTS, help="one fault")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contents = recordings(Path(folder))
        chosen = {options.only: FAULTS[options.only]} if options.only else FAULTS
        found = {name: survive(fault, seconds=options.seconds, contents=contents) for name, fault in chosen.items()}
    figures = {"clients": _CLIENTS, "faults": {name: asdict(survived) for name, survived in found.items()}}
    print_report("chaos", figures, record=options.record, folder=RELIABILITY)
    if any(survived.wrong for survived in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
