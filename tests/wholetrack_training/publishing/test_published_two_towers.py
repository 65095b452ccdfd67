"""The published wholetrack-crnn 2: its card, its contract and the record of how it was judged agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.harness.paths import PROJECT
from wholetrack.inference.bundle import load_bundle
from wholetrack_training.publishing.calibrated_facts import calibrated_facts
from wholetrack_training.publishing.two_tower_card import two_tower_card_text
from wholetrack_training.publishing.two_tower_facts import STARTED_FROM, TAUGHT_BY
from wholetrack_training.results.audio_figures import as_document, audio_figures
from wholetrack_training.results.judged_files import read_judged

pytestmark = pytest.mark.torch

BUNDLE = PROJECT / "models/wholetrack-crnn/2"
RECORD = PROJECT / "docs/judged/wholetrack-crnn-2.json"
RECORDS = sorted((PROJECT / "docs/judged").glob("*.json"))
# Recorded figures have four decimals, and a fit ends at slightly different values on another processor.
TOLERANCE = 2e-3


def as_json(figures: Any) -> Any:
    return json.loads(json.dumps(figures))


def assert_close(found: Any, expected: Any, name: str = "") -> None:
    """Compare nested figures."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key, value in expected.items():
            assert_close(found[key], value, f"{name}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), name
        for i, value in enumerate(expected):
            assert_close(found[i], value, f"{name}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=TOLERANCE, rel=TOLERANCE), name
    else:
        assert found == expected, name


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_the_recorded_figures_follow_from_the_recorded_outputs(record: Path) -> None:
    found = as_document(audio_figures(read_judged(record)))
    assert_close(as_json(found), json.loads(record.read_text())["figures"])


def test_the_contract_states_the_figures_of_the_record() -> None:
    card = load_bundle(BUNDLE).card
    facts = calibrated_facts(read_judged(RECORD), name=card.name, version=card.version, licence=card.licence)
    stated = {name: card.metrics[name] for name in facts.metrics}
    assert_close(as_json(stated), as_json(facts.metrics))
    assert card.calibration
    assert facts.calibration
    assert card.calibration.temperature == pytest.approx(facts.calibration.temperature, rel=TOLERANCE)
    assert card.domain
    assert facts.domain
    assert card.domain.least_probability == pytest.approx(facts.domain.least_probability, rel=TOLERANCE)


def test_the_card_is_up_to_date() -> None:
    assert (BUNDLE / "CARD.md").read_text() == two_tower_card_text(load_bundle(BUNDLE).card)


def test_the_bundle_has_at_most_8_mb() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) <= 8_000_000


def test_the_notice_names_every_network_that_it_learned_from() -> None:
    notice = (PROJECT / "NOTICE").read_text()
    for network in (*STARTED_FROM, *TAUGHT_BY):
        for fact in ("network", "project", "url", "licence", "paper"):
            assert network[fact] in notice


def test_the_gates_of_the_music_tower_are_exported_as_poolings_and_not_repeated() -> None:
    """Means over two axes and a gate for each frame take 10 % more time."""
    nodes = onnx.load(BUNDLE / "model.onnx").graph.node
    repeated = {node.output[0] for node in nodes if node.op_type == "Expand"}
    # Eight blocks have a gate.
    assert sum(node.op_type == "AveragePool" for node in nodes) >= 8
    assert not [node.name for node in nodes if node.op_type == "Mul" and repeated & set(node.input)]
