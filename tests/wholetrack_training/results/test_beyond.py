"""Figures for recordings outside GTZAN, with their intervals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.errors import DataError
from wholetrack_training.results.beyond import judge_beyond, read_beyond
from wholetrack_training.results.intervals import Share
from wholetrack_training.systems.taxonomy import GENRES, GTZAN

LABELS = (*GENRES, "house")
TABLE = """file,genre,gtzan_genre,listeners_say,listeners_percent,duration_s
1.opus,Hiphop,hiphop,Hip-Hop,60,30
2.opus,Rock,rock,Pop,40,30
3.opus,Dance,,Electronic,50,30
4.opus,60s,,Rock,34,30
"""


def one_hot(*first: str) -> np.ndarray:
    """Shares in falling order of the given labels; the others have none."""
    shares = np.zeros(len(LABELS))
    for i, label in enumerate(first):
        shares[LABELS.index(label)] = 1.0 / (i + 1)
    return shares


def test_recordings_are_judged_by_group_and_where_listeners_agree(tmp_path: Path) -> None:
    table = tmp_path / "tracks.csv"
    table.write_text(TABLE)
    recordings = read_beyond(table)
    assert [recording.listeners_agree for recording in recordings] == [True, False, False, False]
    shares = np.stack(
        [
            # Hip-hop is the first of the ten genres, and second of all labels.
            one_hot("electronic", "hiphop"),
            one_hot("pop", "metal", "funk", "rock"),
            # House counts as its parent, which is the genre of dance music.
            one_hot("house"),
            one_hot("rock"),
        ]
    )
    figures = judge_beyond(recordings, shares, LABELS, gtzan_shares=shares[:, : len(GTZAN)])
    assert figures.gtzan == Share(1, 2)
    assert figures.gtzan_agreed == Share(1, 1)
    assert figures.groups_top1 == Share(1, 3)
    assert figures.groups_top3 == Share(2, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"file\n1.opus\n",
        b"file,genre,gtzan_genre,listeners_say\n1.opus,Rock,rock\n",
        b"file,genre,gtzan_genre,listeners_say\n1.opus\n",
        b"file,genre,gtzan_genre,listeners_say\n1.opus,Rock,rock,M\xfcsic\n",
    ],
)
def test_a_table_without_all_columns_is_refused(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "tracks.csv"
    table.write_bytes(content)
    with pytest.raises(DataError, match="is not a table of recordings"):
        read_beyond(table)


def test_the_interval_is_wilsons() -> None:
    low, high = Share(38, 77).interval
    # Checked with statsmodels' proportion_confint(38, 77, method="wilson").
    assert low == pytest.approx(0.3847, abs=1e-3)
    assert high == pytest.approx(0.6031, abs=1e-3)
    assert Share(10, 10).interval[1] <= 1.0
    assert str(Share(1, 2)).startswith("0.500 [")


def test_no_cases_say_nothing_about_the_share(tmp_path: Path) -> None:
    table = tmp_path / "tracks.csv"
    table.write_text(TABLE.splitlines()[0] + "\n")
    nothing = np.zeros((0, len(LABELS)))
    figures = judge_beyond(read_beyond(table), nothing, LABELS, gtzan_shares=nothing[:, : len(GTZAN)])
    for share in (figures.gtzan, figures.gtzan_agreed, figures.groups_top1, figures.groups_top3):
        assert math.isnan(share.value)
        assert share.interval == (0.0, 1.0)
        assert str(share) == "no cases"
