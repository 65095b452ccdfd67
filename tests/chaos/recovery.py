"""Whether the service is as it was before a fault: predictions, files, processes, descriptors and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.chaos.traffic import HANG_S, Expected, differences
from tests.harness.server import Server

_TIMEOUT_S = 20.0
# Descriptors that the event loop may open once.
_SPARE_DESCRIPTORS = 2
_LINE_LENGTH = 2000
_MIB = 1 << 20


def predict(server: Server, content: bytes) -> dict[str, Any]:
    """Return the prediction of the service for a recording."""
    response = server.post(content, timeout_s=HANG_S)
    response.raise_for_status()
    body: dict[str, Any] = response.json()
    return body


@dataclass(frozen=True, slots=True)
class Resources:
    """What an idle service uses.

    Attributes:
        descriptors: Open descriptors that are not network connections.
        memory_mib: Resident memory, in MiB.
    """

    descriptors: int
    memory_mib: float

    @classmethod
    def of(cls, server: Server) -> Resources:
        """Return what the service uses now."""
        return cls(server.descriptors(), server.process.memory_info().rss / _MIB)


def wrong_predictions(server: Server, expected: Expected) -> list[str]:
    """Return why the service does not predict as before the fault, after giving it time to recover."""
    deadline, problem = time.monotonic() + _TIMEOUT_S, ""
    while time.monotonic() < deadline:
        try:
            predictions = {name: predict(server, content) for name, (content, _) in expected.items()}
        except Exception as error:  # noqa: BLE001 - any error is what is reported
            problem = f"after the fault: {error}"
            time.sleep(0.2)
            continue
        return [
            f"after the fault, {name}: {difference}"
            for name, (_, before) in expected.items()
            if before
            for difference in differences(predictions[name], before)
        ]
    return [problem]


def leftovers(server: Server, before: Resources) -> list[str]:
    """Return what uploads, processes and descriptors are left over, after giving the service time to release them."""
    deadline, problems = time.monotonic() + _TIMEOUT_S, list[str]()
    while time.monotonic() < deadline:
        problems = [f"{len(found)} {name} left over" for name, found in server.leftovers().items() if found]
        descriptors = server.descriptors()
        if descriptors > before.descriptors + _SPARE_DESCRIPTORS:
            problems.append(f"{descriptors} open descriptors, {before.descriptors} before")
        if not problems:
            break
        time.sleep(0.1)
    return problems


def log_lines(log: str, *markers: str) -> list[str]:
    """Return the first three lines of a log that contain one of the markers, shortened."""
    found = [line for line in log.splitlines() if any(marker in line for marker in markers)]
    return [line[-_LINE_LENGTH:] for line in found[:3]]
