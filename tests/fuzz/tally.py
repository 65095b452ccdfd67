"""What clients saw during a campaign, counted while it comes in."""

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
# Of a violation's words; an assertion may quote a whole log.
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be.

    Attributes:
        seed: of the campaign.
        number: of the mutant; None if it is about the service after many.
        what: in words.
    """

    seed: int
    number: int | None
    what: str


class Tally:
    """Counts answers and keeps what is wrong; may be used by any thread.

    Args:
        seed: of the campaign.
        keep: folder for the files that something is wrong with, and for a list of it; None to keep none.

    Attributes:
        violations: in the order in which they were found.
        waits_s: how long each mutant's answer took, in seconds, by number.
        numbers: of the mutants by the ids of their requests.
    """

    def __init__(self, seed: int, keep: Path | None) -> None:
        self.violations: list[Violation] = []
        self.waits_s: dict[int, float] = {}
        self.numbers: dict[str, int] = {}
        self._seed = seed
        self._keep = keep
        self._lock = threading.Lock()
        self._counts = {name: Counter[Any]() for name in _COUNTED}

    def add(self, damaged: Mutant, response: httpx.Response | None, seconds: float, wrong: list[str]) -> None:
        """Count an answer, or that there was none, with what is wrong about it."""
        with self._lock:
            self.waits_s[damaged.number] = seconds
            self._counts["mutations"].update(damaged.mutations)
            self._counts["statuses"][response.status_code if response is not None else 0] += 1
            if response is not None:
                self.numbers[response.headers.get("x-request-id", "")] = damaged.number
                if not wrong:
                    self._count(response.json())
            for what in wrong:
                self._note(what, damaged)

    def wrong(self, what: str) -> None:
        """Note what is wrong with the service itself."""
        with self._lock:
            self._note(what, None)

    def counted(self) -> dict[str, dict[Any, int]]:
        """All counts by their name in the report, the most frequent first."""
        return {name: dict(counter.most_common()) for name, counter in self._counts.items()}

    def _count(self, body: dict[str, Any]) -> None:
        if "code" in body:
            self._counts["codes"][body["code"]] += 1
            return
        self._counts["containers"][body["track"]["container"]] += 1
        self._counts["codecs"][body["track"]["codec"]] += 1
        self._counts["warnings"].update(remark["code"] for remark in body["warnings"])

    def _note(self, what: str, damaged: Mutant | None) -> None:
        violation = Violation(self._seed, damaged.number if damaged else None, what[:_LONGEST])
        self.violations.append(violation)
        if self._keep is None:
            return
        self._keep.mkdir(parents=True, exist_ok=True)
        about: dict[str, Any] = asdict(violation)
        if damaged:
            name = f"{damaged.seed}-{damaged.number}.{damaged.suffix}"
            (self._keep / name).write_bytes(damaged.content)
            about |= {"file": name, "origins": damaged.origins, "mutations": damaged.mutations}
        with (self._keep / "violations.jsonl").open("a") as file:
            file.write(json.dumps(about) + "\n")
