"""Records of runs are read as they were written, and their files depend on their content alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.small_network import SMALL, made_up_record, record_of
from wholetrack_training.data.splits import Protocol
from wholetrack_training.errors import DataError
from wholetrack_training.fitting.runs import Run
from wholetrack_training.results.record_files import read_records, write_record
from wholetrack_training.results.summary import summarise

pytestmark = pytest.mark.torch


def test_a_record_holds_the_figures_of_a_run_and_is_read_as_it_was_written(finished: Run, tmp_path: Path) -> None:
    record, figures = record_of(finished), finished.figures()
    assert record.figures.track_accuracy_summed == figures["track_accuracy_summed"]
    assert record.figures.shares == tuple(map(tuple, figures["shares"]))
    assert record.figures.peaks == tuple(figures["peaks"])
    assert record.training.epochs == 6
    assert record.training.history["train_loss"] == tuple(epoch["train_loss"] for epoch in figures["history"])
    assert record.tracks == {"train": 32, "validation": 4, "test": 12}
    assert record.recipe == SMALL.as_dict()
    assert record.label == "wholetrack-crnn-3s"
    assert write_record(record, tmp_path).name == "random-1.json"
    assert read_records(tmp_path) == [record]


def test_records_are_read_by_protocol_and_part(tmp_path: Path) -> None:
    records = [
        made_up_record(1, Protocol.ARTIST_FILTERED),
        *(replace(made_up_record(part), labels=("x", "y")) for part in (1, 2)),
    ]
    for record in reversed(records):
        write_record(record, tmp_path)
    assert read_records(tmp_path) == records


def test_the_files_of_a_record_depend_on_its_content_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_record(made_up_record(1), tmp_path / name)
    for suffix in ("json", "npz"):
        one, two = ((tmp_path / name / f"random-1.{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two
    with np.load(tmp_path / "one" / "random-1.npz", allow_pickle=False) as arrays:
        assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
            "confusion": ("int32", (2, 2)),
            "truth": ("uint16", (2,)),
            "shares": ("uint16", (2, 2)),
            "peaks": ("uint16", (2,)),
            "history_train_loss": ("float64", (2,)),
            "history_validation_loss": ("float64", (2,)),
            "history_validation_track_accuracy": ("float64", (2,)),
        }


def test_a_record_with_former_field_names_is_read(tmp_path: Path) -> None:
    record = made_up_record(1)
    path = write_record(record, tmp_path)
    document = json.loads(path.read_text())
    document["recipe"]["shape"]["deaf_bands"] = document["recipe"]["shape"].pop("masked_top_bands")
    path.write_text(json.dumps(document))
    assert read_records(tmp_path) == [record]


def test_an_incomplete_record_is_refused(tmp_path: Path) -> None:
    path = write_record(made_up_record(1), tmp_path)
    npz = path.with_suffix(".npz")
    content = npz.read_bytes()
    npz.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"the record .*random-1.json cannot be read"):
        read_records(tmp_path)
    npz.unlink()
    with pytest.raises(DataError, match=r"the record .*random-1.json cannot be read: .*random-1.npz"):
        read_records(tmp_path)


def test_mean_and_standard_deviation_over_runs() -> None:
    records = [made_up_record(1, accuracy=0.5), made_up_record(2, accuracy=0.7)]
    summary = summarise([*records, made_up_record(1, Protocol.ARTIST_FILTERED, 0.4)])
    assert set(summary) == {"random_split", "artist_filtered"}
    assert summary["random_split"]["runs"] == 2
    assert summary["random_split"]["tracks"] == 196
    assert summary["random_split"]["track_accuracy_summed"] == 0.6
    assert summary["random_split"]["track_accuracy_summed_sd"] == pytest.approx(0.1414, abs=1e-4)
    assert "track_accuracy_summed_sd" not in summary["artist_filtered"]
