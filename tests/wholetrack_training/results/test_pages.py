"""The pages of results and experiments contain what the records say, and those in docs are up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness.paths import PROJECT

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.small_network import made_up_record
from wholetrack_training.results.audio_page import read_judged_models
from wholetrack_training.results.collection import is_published, read_results, read_robustness
from wholetrack_training.results.experiments_page import differences, experiments_page
from wholetrack_training.results.head_records import read_head_records
from wholetrack_training.results.plots import draw_confusion, draw_learning
from wholetrack_training.results.record_files import write_record
from wholetrack_training.results.results_page import results_page
from wholetrack_training.results.robustness import ORIGINAL, PERTURBATIONS

pytestmark = pytest.mark.torch


def test_results_are_sorted_by_system_and_window_length(tmp_path: Path) -> None:
    labels = ["campana-crnn-1s", "campana-crnn-3s", "campana-crnn-10s", "guimaraes-cnn-1.5s", "plain"]
    for label in reversed(labels):
        write_record(made_up_record(1), tmp_path / label)
    assert list(read_results(tmp_path)) == labels


def test_the_tables_of_results_and_experiments() -> None:
    changed = made_up_record(1, accuracy=0.9)
    changed.recipe["schedule"]["epochs"] = 7
    records = [made_up_record(1, accuracy=0.5), made_up_record(2, accuracy=0.7)]
    results = {"wholetrack-crnn-3s": records, "brief": [changed]}
    robustness = {"x": {"date": "2026-01-01", "clips": 50, "accuracy": {ORIGINAL: 0.7, "louder": 0.68}}}
    text = results_page(results, robustness, {}, {}, pictures="drawn")
    assert "| wholetrack-crnn-3s | 2 | 0.250 (0.000) | 0.250 (0.000) | 0.600 (0.141) |" in text
    assert "| wholetrack-crnn-3s | 25.0 | 60.0 | +35.0 |  |  |  |" in text
    assert "brief" not in text
    assert "| louder | 68 % | -2 |" in text
    assert "(drawn/wholetrack-crnn-3s-confusion.svg)" in text
    lines = experiments_page(results)
    assert "| brief | `schedule.epochs=7` |  |  | 0.250 | 0.900 | 0 + 1 | 2026-01-01 |" in lines
    assert "| wholetrack-crnn-3s | nothing |" in lines


def test_differences_between_recipes() -> None:
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "d": 3}) == [("a.c", 4)]


def test_labels_of_experiments_are_not_published() -> None:
    assert not is_published("wholetrack-crnn-3s-no-mixup")
    assert is_published("guimaraes-cnn-1.5s")
    assert is_published("timbre-svm-3s")


def test_plots_of_the_same_records_are_the_same_files(tmp_path: Path) -> None:
    records = [made_up_record(1), made_up_record(2, accuracy=0.7)]
    for name in ("one", "two"):
        draw_confusion(records, tmp_path / name / "confusion.svg")
        draw_learning(records, tmp_path / name / "learning.svg")
    for kind in ("confusion", "learning"):
        one, two = ((tmp_path / name / f"{kind}.svg").read_text() for name in ("one", "two"))
        assert one == two
        assert "<svg" in one
    assert ">6<" in (tmp_path / "one" / "confusion.svg").read_text()


def test_the_pages_in_docs_are_generated_from_the_records_in_docs() -> None:
    docs = PROJECT / "docs"
    results, robustness = read_results(docs / "results"), read_robustness(docs / "robustness")
    assert (docs / "RESULTS.md").read_text() == results_page(
        results,
        robustness,
        read_judged_models(docs / "judged"),
        read_head_records(docs / "heads"),
        pictures="pictures",
    )
    assert (docs / "EXPERIMENTS.md").read_text() == experiments_page(results)
    shown = re.findall(r"\]\((pictures/.*?)\)", (docs / "RESULTS.md").read_text())
    assert len(shown) >= len(list(filter(is_published, results)))
    assert all((docs / picture).is_file() for picture in shown)
    for measured in robustness.values():
        assert list(measured["accuracy"]) == list(PERTURBATIONS)
