"""A Keras network becomes a bundle, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.wholetrack_training.importing.classifiers import FRAMES, LABELS, MELS, card_with, write_card
from wholetrack.inference.bundle import load_bundle
from wholetrack_training.cli import app

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


def save_keras(path: Path, *, shape: tuple[int, ...] = (MELS, FRAMES, 1), outputs: int = len(LABELS)) -> None:
    """Save a small convolutional network with a softmax."""
    pytest.MonkeyPatch().setenv("KERAS_BACKEND", "torch")
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input(shape),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(outputs, activation="softmax"),
        ]
    )
    network.save(path)


def run(file: Path, tmp_path: Path) -> tuple[int, str]:
    card = write_card(tmp_path, card_with())
    command = ["import", "network", str(file), "--card", str(card), "--licence", "MIT", "--source", "a test"]
    done = CliRunner().invoke(app, [*command, "--models", str(tmp_path / "models")])
    return done.exit_code, done.stdout if done.exit_code == 0 else done.stderr


@pytest.mark.keras
def test_a_keras_network_is_converted(tmp_path: Path) -> None:
    save_keras(tmp_path / "theirs.keras")
    code, output = run(tmp_path / "theirs.keras", tmp_path)
    assert code == 0, output
    bundle = load_bundle(tmp_path / "models" / "theirs" / "2.1")
    imported = bundle.card.trained_on["imported"]
    assert imported["format"] == "Keras"
    assert imported["layouts"] == ["mels,frames,1"]
    assert imported["max_difference"] < 1e-5

    import keras

    windows = np.random.default_rng(0).random((3, FRAMES, MELS), dtype=np.float32)
    network = keras.saving.load_model(tmp_path / "theirs.keras")
    expected = network.predict(windows.transpose(0, 2, 1)[..., None], verbose=0)
    session = onnxruntime.InferenceSession(bundle.onnx, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"mel": windows})
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.keras
@pytest.mark.parametrize(
    ("shape", "outputs", "complaint"),
    [
        ((MELS, FRAMES, 3), len(LABELS), "correct the one that is wrong"),
        ((MELS, FRAMES, 1), 2, "correct the number of labels"),
    ],
)
def test_keras_networks_that_are_refused(tmp_path: Path, shape: tuple[int, ...], outputs: int, complaint: str) -> None:
    save_keras(tmp_path / "theirs.keras", shape=shape, outputs=outputs)
    code, output = run(tmp_path / "theirs.keras", tmp_path)
    assert code == 1
    assert complaint in output


@pytest.mark.keras
def test_a_keras_network_with_code_is_refused(tmp_path: Path) -> None:
    pytest.MonkeyPatch().setenv("KERAS_BACKEND", "torch")
    import keras

    keras.Sequential([keras.layers.Input((FRAMES, MELS)), keras.layers.Lambda(lambda x: x[:, 0, :5])]).save(
        tmp_path / "theirs.keras"
    )
    code, output = run(tmp_path / "theirs.keras", tmp_path)
    assert code == 1
    assert "Keras cannot load" in output


def test_without_keras_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import zipfile

    monkeypatch.setitem(sys.modules, "keras", None)
    with zipfile.ZipFile(tmp_path / "theirs.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
    code, output = run(tmp_path / "theirs.keras", tmp_path)
    assert code == 1
    assert output == "wholetrack-train: Keras is needed to read a .keras file: pip install 'keras>=3.12'\n"
