"""Damaged files by the thousand, sent to the real service by several clients at a time, and what came back.

python -m tests.fuzz.campaign --files 20000 --seed 1 --clients 4 --keep finds

A find is looked at again with ``--seed SEED --first NUMBER --files 1``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from tests.fuzz.corpus import SECONDS, Origin, corpus, fingerprint
from tests.fuzz.expectations import complaints
from tests.fuzz.mutations import Mutant, mutant
from tests.fuzz.tally import Tally, Violation
from tests.harness.recordings import Recorder
from tests.harness.report import print_report
from tests.harness.server import PROJECT, Server, running_server
from wholetrack.decoding.ffmpeg import find_ffmpeg

RECORDED = PROJECT / "docs" / "reliability"
LIMITS = {"max_duration_s": 30.0, "max_requests": 16}
GROWTH_MIB = 64.0
"""By how much the service's resident memory may grow between the first quarter of a campaign and its end. It settles
some 35 MiB above where it starts, once every thread has seen its largest recording."""

_MIB = 1 << 20
# The same windows in other company: a network's batches differ in their last bits.
_SAME = 1e-4
_DRAIN_S = 60.0

Complain = Callable[[httpx.Response], Iterable[str]]
"""What is wrong with an answer."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign found.

    Attributes:
        files: sent.
        seed: of all mutants.
        first: number of the first mutant.
        clients: at a time.
        corpus: fingerprint of the good files.
        origins: how many good files there are.
        seconds: from the first question to the last answer.
        median_s: that an answer took, in seconds.
        slowest_s: that the slowest answer took, in seconds.
        slowest: number of its mutant.
        statuses: answers by HTTP status; 0 for none at all.
        codes: errors by code.
        warnings: remarks about answers by code.
        containers: answers by ffmpeg's name of the container.
        codecs: answers by ffmpeg's name of the codec.
        mutations: how many files had each.
        killed: mutants whose decoder was ended by a signal, by the signal's number.
        memory_first_quarter_mib: resident memory of the service at rest, after a quarter of the files.
        memory_end_mib: the same after all files.
        violations: of what is expected; empty, if all is well.
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
    killed: dict[int, list[int]]
    memory_first_quarter_mib: float
    memory_end_mib: float
    violations: tuple[Violation, ...]


def expected(response: httpx.Response) -> Iterable[str]:
    """What is wrong with an answer of a service with :data:`LIMITS`."""
    return complaints(response, max_duration_s=LIMITS["max_duration_s"])


def campaign(
    *,
    files: int,
    seed: int,
    clients: int,
    first: int = 0,
    timeout_s: float = 60.0,
    keep: Path | None = None,
    complain: Complain = expected,
) -> Campaign:
    """Start the service, send it damaged files, and look at every answer and at what is left behind.

    Args:
        files: to send.
        seed: of the mutants.
        clients: that send at the same time.
        first: number of the first mutant.
        timeout_s: a client that waits longer for an answer calls it a hang.
        keep: folder for the files that something was wrong with, and then for the service's log.
        complain: says what that is.
    """
    tally, memory, killed, began = Tally(seed, keep), list[float](), dict[int, list[int]](), time.perf_counter()
    seconds = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        origins = corpus(Recorder(find_ffmpeg()), _new(folder / "corpus"))
        try:
            with running_server(_new(folder / "server"), **LIMITS) as server:
                rest = _Rest(server, origins[0], tally)
                quarter, end = first + max(1, files // 4), first + files
                began = time.perf_counter()
                for numbers in (range(first, quarter), range(quarter, end)):
                    with httpx.Client(timeout=timeout_s) as http, ThreadPoolExecutor(clients) as threads:

                        def send(number: int, http: httpx.Client = http) -> None:
                            _send(http, rest.url, mutant(origins, seed, number), tally, complain)

                        list(threads.map(send, numbers))
                    seconds = time.perf_counter() - began
                    rest.check()
                    memory.append(rest.memory_mib())
                killed = _killed(server, tally)
        except (AssertionError, httpx.TransportError, psutil.Error) as error:
            if not tally.waits_s:
                raise
            # It is gone, or what running_server looks at is not right: descriptors, exit status, tracebacks in the log.
            tally.wrong(f"the service did not end well: {error!r}")
        if keep and tally.violations:
            shutil.copy(folder / "server" / "log.jsonl", keep)
    first_quarter, at_end = (*memory, 0.0, 0.0)[:2]
    if at_end - first_quarter > GROWTH_MIB:
        tally.wrong(f"the service's memory grew from {first_quarter} to {at_end} MiB")
    slowest = max(tally.waits_s, key=tally.waits_s.__getitem__)
    return Campaign(
        files=files,
        seed=seed,
        first=first,
        clients=clients,
        corpus=fingerprint(origins),
        origins=len(origins),
        seconds=round(seconds, 1),
        median_s=round(float(np.median(list(tally.waits_s.values()))), 3),
        slowest_s=round(tally.waits_s[slowest], 3),
        slowest=slowest,
        **tally.counted(),
        killed=killed,
        memory_first_quarter_mib=first_quarter,
        memory_end_mib=at_end,
        violations=tuple(tally.violations),
    )


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _send(http: httpx.Client, url: str, damaged: Mutant, tally: Tally, complain: Complain) -> None:
    """Post one file, every other one as a form."""
    name, began = f"{damaged.number}.{damaged.suffix}", time.perf_counter()
    response: httpx.Response | None = None
    try:
        if damaged.number % 2:
            response = http.post(url, content=damaged.content)
        else:
            response = http.post(url, files={"file": (name, damaged.content)})
    except httpx.TimeoutException:
        wrong = [f"no answer within {time.perf_counter() - began:.0f} s"]
    except httpx.TransportError as error:
        wrong = [f"no answer: {error!r}"]
    else:
        wrong = list(complain(response))
    tally.add(damaged, response, time.perf_counter() - began, wrong)


def _killed(server: Server, tally: Tally) -> dict[int, list[int]]:
    """Numbers of the mutants whose decoder was ended by a signal, by signal; as the service's log has it."""
    found: dict[int, list[int]] = {}
    for line in map(json.loads, server.log.read_text().splitlines()):
        _, ended, words = line["message"].partition("ffmpeg was terminated by signal ")
        if ended and line["request_id"] in tally.numbers:
            found.setdefault(int(words.partition(":")[0]), []).append(tally.numbers[line["request_id"]])
    return found


class _Rest:
    """The service between questions: nothing is left of earlier ones, and a good file is answered as at first.

    Attributes:
        url: that asks for everything that an answer can hold.
    """

    def __init__(self, server: Server, good: Origin, tally: Tally) -> None:
        self._server = server
        self._good = good
        self._tally = tally
        (card,) = (model["card"] for model in server.get("/v1/models").json()["models"] if model["default"])
        self.url = f"{server.url}/v1/predict?top_k={len(card['labels'])}"
        self._first_answer = self._answer()
        while self._connections():
            time.sleep(0.05)
        self._descriptors = server.descriptors()

    def memory_mib(self) -> float:
        """Resident memory of the service alone, in MiB."""
        return round(self._server.process.memory_info().rss / _MIB, 1)

    def check(self) -> None:
        """Look at a good file's answer, and at what is left when no client is there any more."""
        if not np.allclose(self._answer(), self._first_answer, atol=_SAME):
            self._tally.wrong("a good file is answered otherwise than at first")
        try:
            self._server.wait_until_clean(_DRAIN_S)
        except AssertionError as error:
            self._tally.wrong(f"left behind: {error}")
        deadline = time.monotonic() + _DRAIN_S
        while (open_still := self._connections()) > 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        if open_still > 0:
            self._tally.wrong(f"{open_still} connections were left open")
        if (open_still := self._server.descriptors() - self._descriptors) > 0:
            self._tally.wrong(f"{open_still} descriptors were left open")

    def _connections(self) -> int:
        """Connections of clients; descriptors can only be told from them while none comes or goes."""
        return sum(one.status != psutil.CONN_LISTEN for one in self._server.process.net_connections())

    def _answer(self) -> Any:
        """The probabilities of all windows of a good file."""
        response = self._server.post(self._good.content)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert (answer["track"]["duration_s"], answer["warnings"]) == (SECONDS, []), answer
        return answer["windows"]["probabilities"]


def main() -> None:
    """Run a campaign, print what it found, and fail if that is something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--timeout-s", type=float, default=60.0, help="what a client calls a hang")
    parser.add_argument("--keep", type=Path, help="folder for the files that something was wrong with")
    parser.add_argument("--record", action="store_true", help="keep the figures in docs/reliability")
    options = parser.parse_args()
    found = campaign(
        files=options.files,
        seed=options.seed,
        clients=options.clients,
        first=options.first,
        timeout_s=options.timeout_s,
        keep=options.keep,
    )
    print_report("fuzz", asdict(found), record=options.record, folder=RECORDED)
    sys.exit(1 if found.violations else 0)


if __name__ == "__main__":
    main()
