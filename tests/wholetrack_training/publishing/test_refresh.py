"""The figures and the text of a bundle can be refreshed from records; its networks stay the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wholetrack.inference.bundle import load_bundle

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.harness.paths import PROJECT
from tests.wholetrack_training.small_network import SMALL, record_of
from wholetrack_training.data.splits import Protocol
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import PublishingError
from wholetrack_training.fitting.runs import Run
from wholetrack_training.publishing.model_card import card_text
from wholetrack_training.publishing.quantisation import add_int8
from wholetrack_training.publishing.refresh import refresh_card
from wholetrack_training.results.calibration import Calibration
from wholetrack_training.results.record_files import read_records

pytestmark = pytest.mark.torch


def test_figures_of_more_runs_are_stated_and_the_networks_stay_the_same(
    finished: Run, published: Path, toys: TrackSet
) -> None:
    add_int8(published, [published], toys)
    before, text = load_bundle(published), (published / "CARD.md").read_text()
    record = record_of(finished)
    assert refresh_card(published, [record]) == before.card
    assert (published / "CARD.md").read_text() == text
    another = replace(record, part=2, figures=replace(record.figures, track_accuracy_summed=0.5))
    card = refresh_card(published, [record, another])
    after = load_bundle(published)
    assert after.card == card
    assert (after.onnx, after.int8) == (before.onnx, before.int8)
    stated = card.metrics["random_split"]
    assert (stated["runs"], stated["track_accuracy_summed"]) == (2, 0.75)
    assert card.model_copy(update={"metrics": before.card.metrics}) == before.card
    assert "| tracks: accuracy by summed score | 0.750 | 0.354 |" in (published / "CARD.md").read_text()


def test_the_summary_is_refreshed(finished: Run, published: Path) -> None:
    card = json.loads((published / "model.json").read_text())
    (published / "model.json").write_text(json.dumps({**card, "summary": "former text"}))
    assert refresh_card(published, [record_of(finished)]).summary == card["summary"]


def test_records_of_another_recipe_are_refused(finished: Run, published: Path) -> None:
    record = record_of(finished)
    for others in (
        [],
        [replace(record, parameters=1)],
        [replace(record, labels=("other", "genres"))],
        [record, replace(record, system="timbre-svm")],
    ):
        with pytest.raises(PublishingError, match="the records do not belong to the recipe"):
            refresh_card(published, others)
    longer = replace(record, recipe=SMALL.changed({"schedule.epochs": 7}).as_dict())
    with pytest.raises(PublishingError, match="must come from runs of one recipe"):
        refresh_card(published, [record, longer])


@pytest.mark.parametrize(("after", "is_used"), [(0.03, True), (0.05, False)])
def test_a_temperature_is_used_only_if_it_reduces_the_calibration_error(
    finished: Run, published: Path, monkeypatch: pytest.MonkeyPatch, *, after: float, is_used: bool
) -> None:
    monkeypatch.setattr(
        "wholetrack_training.publishing.figures.calibrate",
        lambda _: Calibration(1.2, ece_before=0.04, ece_after=after),
    )
    folds = [replace(record_of(finished), protocol=Protocol.ARTIST_FILTERED, part=part) for part in (1, 2)]
    card = refresh_card(published, folds)
    assert (card.calibration is not None) == is_used
    assert card.metrics["calibration"] == {"temperature": 1.2, "ece_before": 0.04, "ece_after": after}
    text = (published / "CARD.md").read_text()
    assert ("is calibrated with a temperature of 1.20" in text) == is_used
    assert (f"error is 0.040; a temperature would change it to {after:.3f}" in text) == (not is_used)


@pytest.mark.parametrize(
    ("bundle", "label"),
    [
        ("models/wholetrack-crnn-gtzan/1", "wholetrack-crnn-3s"),
        ("models/hilsdorf-crnn/1", "hilsdorf-crnn-3s"),
        ("models/campana-crnn/1", "campana-crnn-3s"),
        ("models/guimaraes-cnn/1", "guimaraes-cnn-1.5s"),
        ("models/deepsound-crnn/1", "deepsound-crnn-29s"),
        *((f"tests/folds/fold-{fold}/1", "wholetrack-crnn-3s") for fold in (1, 2, 3)),
    ],
)
def test_the_cards_of_the_project_are_up_to_date(bundle: str, label: str) -> None:
    card = load_bundle(PROJECT / bundle).card
    records = read_records(PROJECT / "docs" / "results" / label)
    assert (PROJECT / bundle / "CARD.md").read_text() == card_text(card, records)
