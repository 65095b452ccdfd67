"""Counts of the responses in a campaign, and its violations."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.fuzz.mutations import Mutant

_COUNTED = ("statuses", "codes", "warnings", "containers", "codecs", "mutations")
# An assertion may quote a whole log.
_MAX_PROBLEM_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that should not have happened.

    Attributes:
        seed: Seed of the campaign.
        number: Number of the mutant; None for a problem of the service after many mutants.
        problem: Description.
    """

    seed: int
    number: int | None
    problem: str


class Tally:
    """Counts responses and keeps violations; can be used from any thread.

    Args:
        seed: Seed of the campaign.
        keep: Folder for the files that caused violations, and for a list of the violations; None to keep none.

    Attributes:
        violations: Violations in the order in which they were found.
        latencies_s: Latency of the request for each mutant by its number, in seconds.
        numbers: Numbers of the mutants by request id.
    """

    def __init__(self, seed: int, keep: Path | None) -> None:
        self.violations: list[Violation] = []
        self.latencies_s: dict[int, float] = {}
        self.numbers: dict[str, int] = {}
        self._seed = seed
        self._keep = keep
        self._lock = threading.Lock()
        self._counts = {name: Counter[Any]() for name in _COUNTED}

    def add(self, mutant: Mutant, response: httpx.Response | None, seconds: float, problems: list[str]) -> None:
        """Count a response, or None for a missing one, with the problems found in it."""
        with self._lock:
            self.latencies_s[mutant.number] = seconds
            self._counts["mutations"].update(mutant.mutations)
            self._counts["statuses"][response.status_code if response is not None else 0] += 1
            if response is not None:
                self.numbers[response.headers.get("x-request-id", "")] = mutant.number
                if not problems:
                    self._count(response.json())
            for problem in problems:
                self._add_violation(problem, mutant)

    def report(self, problem: str) -> None:
        """Report a problem of the service itself."""
        with self._lock:
            self._add_violation(problem, None)

    def counts(self) -> dict[str, dict[Any, int]]:
        """Return all counts by name, each with the most frequent entry first."""
        return {name: dict(counter.most_common()) for name, counter in self._counts.items()}

    def _count(self, body: dict[str, Any]) -> None:
        if "code" in body:
            self._counts["codes"][body["code"]] += 1
            return
        self._counts["containers"][body["track"]["container"]] += 1
        self._counts["codecs"][body["track"]["codec"]] += 1
        self._counts["warnings"].update(warning["code"] for warning in body["warnings"])

    def _add_violation(self, problem: str, mutant: Mutant | None) -> None:
        violation = Violation(self._seed, mutant.number if mutant else None, problem[:_MAX_PROBLEM_LENGTH])
        self.violations.append(violation)
        if self._keep is None:
            return
        self._keep.mkdir(parents=True, exist_ok=True)
        entry: dict[str, Any] = asdict(violation)
        if mutant:
            name = f"{mutant.seed}-{mutant.number}.{mutant.suffix}"
            (self._keep / name).write_bytes(mutant.content)
            entry |= {"file": name, "origins": mutant.origins, "mutations": mutant.mutations}
        with (self._keep / "violations.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
