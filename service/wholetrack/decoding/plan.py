"""How thoroughly a file is decoded. Nearly all files need little; the others are decoded again."""

from __future__ import annotations

from dataclasses import dataclass

from wholetrack.decoding.limits import DecoderMemory


@dataclass(frozen=True, slots=True)
class DecodingPlan:
    """How a file is decoded.

    Attributes:
        memory: How much memory ffmpeg may use.
        exact: Whether audio is complete even if the sample rate or the channels of a stream change, and whether
            channels that cancel each other are replaced. This takes more CPU time, and hardly any recording needs it.
    """

    memory: DecoderMemory
    exact: bool


QUICK = DecodingPlan(DecoderMemory.ORDINARY, exact=False)
THOROUGH = DecodingPlan(DecoderMemory.LARGE, exact=True)


class DecodeAgainError(Exception):
    """The audio decoded so far may be wrong. Decode the file from the beginning with another plan.

    It never reaches a client.

    Attributes:
        plan: The plan to use.
    """

    def __init__(self, plan: DecodingPlan, reason: str) -> None:
        super().__init__(reason)
        self.plan = plan
