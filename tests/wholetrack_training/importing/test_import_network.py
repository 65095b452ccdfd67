"""Classifiers in ONNX and TorchScript become bundles, which the service serves with the same results."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from wholetrack import startup
from wholetrack.contracts import TrackPrediction
from wholetrack.inference.bundle import load_bundle
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.importing.classifiers import (
    FRAMES,
    LABELS,
    MELS,
    TAG_OUTPUTS,
    card_with,
    classifier,
    expected_logits,
    softmax,
    weights,
    write_card,
)
from wholetrack_training.cli import app

pytestmark = pytest.mark.torch

LICENCE = ["--licence", "MIT", "--source", "https://example.org/theirs"]


@pytest.fixture
def song(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(wav_bytes(tune[: 22050 * 7], 22050))
    return path


@contextmanager
def served(models: Path, name: str) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "BUILT_IN_MODELS", models)
        pipeline = build_pipeline(Settings(device="cpu", default_model=name))
    try:
        yield pipeline
    finally:
        pipeline.close()


def imported(tmp_path: Path, file: Path, card: Path, *arguments: str) -> Path:
    models = tmp_path / "models"
    done = CliRunner().invoke(
        app, ["import", "network", str(file), "--card", str(card), *LICENCE, "--models", str(models), *arguments]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{models / 'theirs' / '2.1'}\n"
    return models


def predicted(models: Path, song: Path) -> tuple[TrackPrediction, NDArray[np.float32]]:
    """Return the prediction of the service, and the windows that it classified."""
    with served(models, "theirs") as pipeline:
        (windows,) = pipeline.normalised_windows(song, max_duration_s=60).arrays
        return pipeline.predict(song, max_duration_s=60), windows


def test_an_onnx_classifier_is_served_and_its_card_says_where_it_came_from(tmp_path: Path, song: Path) -> None:
    file = tmp_path / "theirs.onnx"
    onnx.save(classifier(), file)
    models = imported(tmp_path, file, write_card(tmp_path, card_with()))
    found, windows = predicted(models, song)
    np.testing.assert_allclose(found.windows.probabilities, softmax(expected_logits(windows)), atol=1e-5)
    assert len(found.windows.probabilities) == 6

    folder = models / "theirs" / "2.1"
    card = load_bundle(folder).card
    assert card.licence == "MIT"
    assert card.opset == 17
    assert card.parents == {"funk": "soul"}
    assert card.trained_on["data"] == "recordings of somebody else"
    origin = card.trained_on["imported"]
    assert origin["source"] == "https://example.org/theirs"
    assert origin["file"] == "theirs.onnx"
    text = (folder / "CARD.md").read_text()
    for fact in (
        "https://example.org/theirs",
        "MIT",
        "folk, funk, jazz",
        origin["file_sha256"],
        "Not measured",
        '"min_max"',
    ):
        assert fact in text
    assert (folder.parent / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize(
    ("layout", "shape", "time_axis", "squeeze"),
    [
        ("frames,mels", ("N", "T", MELS), 1, None),
        ("mels,frames", ("N", MELS, FRAMES), 2, None),
        ("frames,mels,1", (None, FRAMES, MELS, 1), 1, 3),
        ("mels,frames,1", ("N", MELS, None, 1), 2, 3),
        ("1,frames,mels", ("N", 1, FRAMES, MELS), 1, 1),
        ("1,mels,frames", ("N", 1, MELS, FRAMES), 2, 1),
    ],
)
def test_every_order_of_the_axes_is_found_from_the_declared_shape(
    tmp_path: Path, song: Path, layout: str, shape: tuple[int | str | None, ...], time_axis: int, squeeze: int | None
) -> None:
    file = tmp_path / "theirs.onnx"
    onnx.save(classifier(shape=shape, time_axis=time_axis, squeeze=squeeze), file)
    models = imported(tmp_path, file, write_card(tmp_path, card_with()))
    found, windows = predicted(models, song)
    np.testing.assert_allclose(found.windows.probabilities, softmax(expected_logits(windows)), atol=1e-5)
    card = load_bundle(models / "theirs" / "2.1").card
    assert card.trained_on["imported"]["layouts"] == [layout]


def test_tags_alone_give_scores_of_those_that_are_genres(tmp_path: Path, song: Path) -> None:
    file = tmp_path / "theirs.onnx"
    onnx.save(classifier(last="Sigmoid", output="tag"), file)
    card = card_with(labels=None, parents=None, outputs=TAG_OUTPUTS)
    models = imported(tmp_path, file, write_card(tmp_path, card))
    found, windows = predicted(models, song)
    logits = expected_logits(windows)
    assert found.labels == ("jazz", "soul", "folk")
    np.testing.assert_allclose(found.windows.probabilities, softmax(logits[:, 1:4]), atol=1e-5)
    assert found.tags
    assert found.tags.track is not None
    np.testing.assert_allclose(found.tags.track, (1 / (1 + np.exp(-logits))).mean(axis=0), atol=1e-5)


def test_a_torchscript_classifier_is_converted_and_served(tmp_path: Path, song: Path) -> None:
    import torch

    class Theirs(torch.nn.Module):
        """Takes ``[N, 1, mels, frames]``, and returns logits, tags and an embedding."""

        def __init__(self) -> None:
            super().__init__()
            matrix, bias = weights()
            self.linear = torch.nn.Linear(MELS, len(LABELS))
            self.linear.load_state_dict({"weight": torch.from_numpy(matrix.T), "bias": torch.from_numpy(bias)})
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            mean = x.mean(3).flatten(1)
            logits = self.linear(self.dropout(mean))
            return logits, logits * 0.5, mean

    file = tmp_path / "theirs.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(Theirs()), file)
    tags = {**TAG_OUTPUTS["tags"], "yields": "logits"}
    outputs = {
        "embedding": {"name": "vector", "length": MELS},
        "scores": {"name": "genre", "yields": "logits"},
        "tags": tags,
    }
    models = imported(tmp_path, file, write_card(tmp_path, card_with(outputs=outputs)), "--layout", "1,mels,frames")
    found, windows = predicted(models, song)
    logits = expected_logits(windows)
    np.testing.assert_allclose(found.windows.probabilities, softmax(logits), atol=1e-5)
    assert found.tags
    assert found.tags.track is not None
    np.testing.assert_allclose(found.tags.track, (1 / (1 + np.exp(-logits / 2))).mean(axis=0), atol=1e-5)
    card = load_bundle(models / "theirs" / "2.1").card
    assert card.trained_on["imported"]["format"] == "TorchScript"
    assert card.trained_on["imported"]["max_difference"] < 1e-5


def test_the_card_and_the_export_of_the_guide_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    guide = (PROJECT / "docs" / "importing.md").read_text()
    blocks = {kind: re.search(rf"```{kind}\n(.*?)```", guide, re.DOTALL) for kind in ("json", "python")}
    assert blocks["json"]
    assert blocks["python"]
    document = json.loads(blocks["json"][1])
    (entry,) = document["inputs"]
    shape = (entry["frames"], entry["features"]["n_mels"])
    layers = (torch.nn.Flatten(), torch.nn.Linear(shape[0] * shape[1], len(document["labels"])), torch.nn.Softmax(1))
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(
            blocks["python"][1],
            {"torch": torch, "network": torch.nn.Sequential(*layers), "windows": torch.zeros(2, *shape)},
        )
    card = write_card(tmp_path, document)
    done = CliRunner().invoke(app, ["import", "network", "their.onnx", "--card", str(card), *LICENCE])
    assert done.stdout == "my-models/their-classifier/1\n", done.output


def test_without_models_the_folder_is_that_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, card = tmp_path / "theirs.onnx", write_card(tmp_path, card_with())
    onnx.save(classifier(), file)
    monkeypatch.chdir(tmp_path)
    arguments = ["import", "network", str(file), "--card", str(card), *LICENCE]
    assert CliRunner().invoke(app, arguments).stdout == "my-models/theirs/2.1\n"
    monkeypatch.setenv("WHOLETRACK_MODELS_DIR", str(tmp_path / "others"))
    done = CliRunner().invoke(app, arguments)
    assert done.stdout == f"{tmp_path / 'others' / 'theirs' / '2.1'}\n", done.output
    assert json.loads((tmp_path / "others/theirs/2.1/model.json").read_text())["name"] == "theirs"
