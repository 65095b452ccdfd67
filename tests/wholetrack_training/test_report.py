"""The pages of results are what the records say, and the records what runs were judged to be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.harness.paths import PROJECT

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.records import AVERAGED, Record, read_records, summarise
from wholetrack_training.results.report import (
    differences,
    experiments_text,
    is_published,
    read_results,
    read_robustness,
    results_text,
)
from wholetrack_training.results.robustness import CLEAN
from wholetrack_training.systems import SYSTEMS
from wholetrack_training.systems.recipe import Source

pytestmark = pytest.mark.torch


def made_up(part: int, protocol: Protocol = Protocol.RANDOM, accuracy: float = 0.5) -> Record:
    figures: dict[str, Any] = dict.fromkeys(AVERAGED, 0.25)
    figures |= {"track_accuracy_summed": accuracy, "n_tracks": 98, "confusion": [[3, 1], [2, 4]]}
    epoch = {"train_loss": 1.0, "validation_loss": 2.0, "validation_track_accuracy": 0.5}
    return Record(
        date="2026-01-01",
        data="made-up.npz",
        protocol=protocol,
        part=part,
        seed=0,
        labels=("a", "b"),
        tracks={"train": 1, "validation": 1, "test": 1},
        system="wholetrack-crnn",
        recipe=SYSTEMS["wholetrack-crnn"].of(Source.PRECOMPUTED).as_dict(),
        parameters=12_345,
        mflop_per_window=6.7,
        figures=figures,
        training={"epochs": 2, "best_epoch": 1, "minutes": 3.0, "history": [epoch, epoch]},
    )


def test_mean_and_deviation_over_runs() -> None:
    summary = summarise([made_up(1, accuracy=0.5), made_up(2, accuracy=0.7), made_up(1, Protocol.ARTIST_FILTERED, 0.4)])
    assert set(summary) == {"random_split", "artist_filtered"}
    assert summary["random_split"]["runs"] == 2
    assert summary["random_split"]["tracks"] == 196
    assert summary["random_split"]["track_accuracy_summed"] == 0.6
    assert summary["random_split"]["track_accuracy_summed_sd"] == pytest.approx(0.1414, abs=1e-4)
    assert "track_accuracy_summed_sd" not in summary["artist_filtered"]


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    records = [made_up(2), made_up(1)]
    for record in records:
        assert record.write(tmp_path).name == f"random-{record.part}.json"
    read = read_records(tmp_path)
    assert [record.part for record in read] == [1, 2]
    assert read[0] == records[1]
    assert read[0].label == "wholetrack-crnn-3s"


def test_results_come_by_system_and_length_of_window(tmp_path: Path) -> None:
    labels = ["campana-crnn-1s", "campana-crnn-3s", "campana-crnn-10s", "guimaraes-cnn-1.5s", "plain"]
    for label in reversed(labels):
        made_up(1).write(tmp_path / label)
    assert list(read_results(tmp_path)) == labels


def test_tables_of_results_and_experiments() -> None:
    changed = made_up(1, accuracy=0.9)
    changed.recipe["schedule"]["epochs"] = 7
    results = {"wholetrack-crnn-3s": [made_up(1, accuracy=0.5), made_up(2, accuracy=0.7)], "brief": [changed]}
    text = results_text(
        results, {"x": {"date": "2026-01-01", "clips": 50, "accuracy": {CLEAN: 0.7, "louder": 0.68}}}, pictures="drawn"
    )
    assert "| wholetrack-crnn-3s | 2 | 0.250 (0.000) | 0.250 (0.000) | 0.600 (0.141) |" in text
    assert "| wholetrack-crnn-3s | 25.0 | 60.0 | +35.0 |  |  |  |" in text
    assert "brief" not in text
    assert "| louder | 68 % | -2 |" in text
    assert "(drawn/wholetrack-crnn-3s-confusion.svg)" in text
    lines = experiments_text(results)
    assert "| brief | `schedule.epochs=7` |  |  | 0.250 | 0.900 | 0 + 1 | 2026-01-01 |" in lines
    assert "| wholetrack-crnn-3s | the recipe as it is |" in lines


def test_differences_between_recipes() -> None:
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "d": 3}) == [("a.c", 4)]
    assert not is_published("wholetrack-crnn-3s-no-mixup")
    assert is_published("guimaraes-cnn-1.5s")


def test_pictures_are_the_same_whenever_they_are_drawn(tmp_path: Path) -> None:
    from wholetrack_training.results.plots import draw_confusion, draw_learning

    records = [made_up(1), made_up(2, accuracy=0.7)]
    for name in ("one", "two"):
        draw_confusion(records, tmp_path / name / "confusion.svg")
        draw_learning(records, tmp_path / name / "learning.svg")
    for kind in ("confusion", "learning"):
        one, two = ((tmp_path / name / f"{kind}.svg").read_text() for name in ("one", "two"))
        assert one == two
        assert "<svg" in one
    assert ">6<" in (tmp_path / "one" / "confusion.svg").read_text()


def test_the_pages_in_the_project_are_those_of_its_records() -> None:
    docs = PROJECT / "docs"
    results = read_results(docs / "results")
    assert (docs / "RESULTS.md").read_text() == results_text(
        results, read_robustness(docs / "robustness"), pictures="pictures"
    )
    assert (docs / "EXPERIMENTS.md").read_text() == experiments_text(results)
    shown = re.findall(r"\]\((pictures/.*?)\)", (docs / "RESULTS.md").read_text())
    assert len(shown) >= len(list(filter(is_published, results)))
    assert all((docs / picture).is_file() for picture in shown)
