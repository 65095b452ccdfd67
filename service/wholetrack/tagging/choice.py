"""Which genres to write into a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from wholetrack.contracts import TrackPrediction
from wholetrack.tagging.genre_map import GenreMap


class Mode(StrEnum):
    """What to do with the genres that a file has."""

    ONLY_MISSING = "only-missing"
    REPLACE = "replace"
    APPEND = "append"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is written for a recording.

    Attributes:
        genres: The genres that the file has afterwards.
        reason: Why nothing is written; None if something is.
    """

    genres: tuple[str, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which genres are written.

    Attributes:
        mode: What to do with the genres that a file has.
        min_confidence: Nothing is written below this confidence.
        max_genres: Largest number of genres that are predicted for a file.
        min_share: A further genre needs at least this share of the summed score.
        genre_map: Their names.
    """

    mode: Mode
    min_confidence: float
    max_genres: int
    min_share: float
    genre_map: GenreMap

    def choose(self, prediction: TrackPrediction, present: Sequence[str]) -> Choice:
        """Return what to write.

        Args:
            prediction: The prediction for the recording.
            present: The genres that the file has.
        """
        unchanged = tuple(present)
        if (reason := self._reason_to_skip(prediction, present)) is not None:
            return Choice(unchanged, reason)
        names = self._names(prediction)
        if not names:
            return Choice(unchanged, "no name for this genre is allowed")
        if self.mode is Mode.APPEND:
            known = {self.genre_map.canonical(name).casefold() for name in present}
            names = (*present, *(name for name in names if name.casefold() not in known))
        return Choice(names, "has this genre" if names == unchanged else None)

    def _reason_to_skip(self, prediction: TrackPrediction, present: Sequence[str]) -> str | None:
        if present and self.mode is Mode.ONLY_MISSING:
            return "has a genre"
        if prediction.summed_score.genre is None:
            return "silent"
        if prediction.in_domain is False:
            return "unlike the music that the model knows"
        if prediction.confidence < self.min_confidence:
            return f"confidence below {self.min_confidence:g}"
        return None

    def _names(self, prediction: TrackPrediction) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for place, ranked in enumerate(prediction.summed_score.ranked[: self.max_genres]):
            if place and ranked.share < self.min_share:
                break
            if (name := self.genre_map.name_of(ranked.genre)) is not None:
                names[name] = None
        return tuple(names)
