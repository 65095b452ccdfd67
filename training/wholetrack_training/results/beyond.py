"""Judges a model on recordings outside GTZAN: by the group that researchers put them in, and where listeners agree."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.errors import DataError
from wholetrack_training.results.intervals import Share
from wholetrack_training.systems.taxonomy import GTZAN, PARENTS

GROUPS: Mapping[str, str] = {
    "Ambient": "ambient",
    "Classical": "classical",
    "Country": "country",
    "Dance": "electronic",
    "Electronic": "electronic",
    "Film": "soundtrack",
    "Folk": "folk",
    "Funk": "funk",
    "Hiphop": "hiphop",
    "Jazz": "jazz",
    "Metal": "metal",
    "Pop": "pop",
    "RnB": "soul",
    "Rock": "rock",
    "VG": "soundtrack",
}
"""The genre of each group. The groups of the sixties and of the eighties have none."""


@dataclass(frozen=True, slots=True)
class BeyondRecording:
    """A row of the table.

    Attributes:
        file: File name.
        group: Group that researchers put it in.
        gtzan_genre: GTZAN's genre of the group; None if GTZAN lacks it.
        listeners_agree: Whether listeners named the group most often.
    """

    file: str
    group: str
    gtzan_genre: str | None
    listeners_agree: bool


@dataclass(frozen=True, slots=True)
class BeyondFigures:
    """How many recordings are right.

    Attributes:
        gtzan: Those of GTZAN's genres, with the prediction folded into the ten.
        gtzan_agreed: Of these, those on which listeners agree.
        groups_top1: Those of all groups with a genre; a child counts as its parent.
        groups_top3: The same, if the genre is among the first three.
    """

    gtzan: Share
    gtzan_agreed: Share
    groups_top1: Share
    groups_top3: Share


def read_beyond(table: Path) -> list[BeyondRecording]:
    """Read the table of recordings.

    Raises:
        DataError: If it is missing, is not UTF-8, or lacks a column or a cell.
    """
    try:
        with table.open(newline="", encoding="utf-8") as text:
            rows = list(csv.DictReader(text))
        recordings = [
            BeyondRecording(
                file=row["file"],
                group=row["genre"],
                gtzan_genre=row["gtzan_genre"] or None,
                listeners_agree=_plain(row["genre"]) == _plain(row["listeners_say"]),
            )
            for row in rows
            if None not in row.values()
        ]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(f"{table} is not a table of recordings: {error}") from error
    if len(recordings) < len(rows):
        raise DataError(f"{table} is not a table of recordings: a row has too few cells")
    return recordings


def judge_beyond(
    recordings: Sequence[BeyondRecording],
    shares: NDArray[np.float64],
    labels: Sequence[str],
    *,
    gtzan_shares: NDArray[np.float64],
) -> BeyondFigures:
    """Judge predictions of whole recordings.

    Args:
        recordings: What was predicted.
        shares: Share of each label, ``[n_recordings, n_labels]``.
        labels: Names of the labels.
        gtzan_shares: Share of each of GTZAN's genres, with the prediction folded into the ten, ``[n_recordings, 10]``.
    """
    ten = gtzan_shares.argmax(1)
    right = {
        i: GTZAN[ten[i]] == recording.gtzan_genre
        for i, recording in enumerate(recordings)
        if recording.gtzan_genre is not None
    }
    agreed = [right[i] for i in right if recordings[i].listeners_agree]
    ranks = genre_ranks([recording.group for recording in recordings], shares, labels)
    n_groups = int((ranks >= 0).sum())
    return BeyondFigures(
        gtzan=Share(sum(right.values()), len(right)),
        gtzan_agreed=Share(sum(agreed), len(agreed)),
        groups_top1=Share(int((ranks == 0).sum()), n_groups),
        groups_top3=Share(int(((ranks >= 0) & (ranks < 3)).sum()), n_groups),
    )


def genre_ranks(groups: Sequence[str], shares: NDArray[np.float64], labels: Sequence[str]) -> NDArray[np.int_]:
    """Return the position of each recording's genre in the order of the shares, ``[n_recordings]``.

    A child counts as its parent. The rank of a recording whose group has no genre is -1, and that of a genre that is
    not among the labels is their number.

    Args:
        groups: Group of each recording.
        shares: Share of each label, ``[n_recordings, n_labels]``.
        labels: Names of the labels.
    """
    return np.array(
        [
            _rank(GROUPS[group], row, labels) if group in GROUPS else -1
            for group, row in zip(groups, shares, strict=True)
        ]
    )


def _rank(genre: str, shares: NDArray[np.float64], labels: Sequence[str]) -> int:
    order = [labels[i] for i in np.argsort(-shares, kind="stable")]
    genres = [PARENTS.get(label, label) for label in order]
    return genres.index(genre) if genre in genres else len(genres)


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "")
