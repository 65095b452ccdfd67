"""What the clients of an attack have done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of one client, or of all of them.

    Attributes:
        connections: Connections opened.
        sent_bytes: Bytes sent.
        responses: Number of responses by status, and of WebSockets by the code with which the service closed them.
    """

    connections: int = 0
    sent_bytes: int = 0
    responses: Counter[int] = field(default_factory=Counter)

    def count_response(self, response: bytes) -> None:
        """Count a response that begins with these bytes."""
        status = response[9:12]
        if response.startswith(b"HTTP/1.1 ") and status.isdigit():
            self.responses[int(status)] += 1

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """Return the sums of several tallies."""
        total = cls()
        for tally in tallies:
            total.connections += tally.connections
            total.sent_bytes += tally.sent_bytes
            total.responses += tally.responses
        return total
