"""Networks and cards that cannot be imported: the command says in one sentence what is wrong and what to do."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto
from typer.testing import CliRunner

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from tests.wholetrack_training.importing.classifiers import (
    CARD,
    FRAMES,
    LABELS,
    MELS,
    TAG_OUTPUTS,
    card_with,
    classifier,
    write_card,
)
from wholetrack.inference.bundle import BUILT_IN_MODELS
from wholetrack_training.cli import app

pytestmark = pytest.mark.torch


def refusal(file: Path, card: Path, *arguments: str) -> str:
    """Return the sentence with which an import fails."""
    models = file.parent / "models"
    command = ["import", "network", str(file), "--card", str(card), "--licence", "MIT", "--source", "a test"]
    done = CliRunner().invoke(app, [*command, "--models", str(models), *arguments])
    assert done.exit_code == 1, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert not models.exists()
    sentence = done.stderr.strip()
    assert sentence.startswith("wholetrack-train: ")
    assert "\n" not in sentence
    return sentence


def features_with(**changes: object) -> list[dict[str, Any]]:
    entry = CARD["inputs"][0]
    return [{**entry, "features": {**entry["features"], **changes}}]


@pytest.mark.parametrize(
    ("card", "complaint"),
    [
        (card_with(labels=["folk", "funk", "folk", "punk", "soul"]), "labels must be distinct"),
        (card_with(parents={"funk": "sole"}), "'sole', the parent of 'funk', is not one of the labels (is it 'soul'?)"),
        (card_with(labels=None), "labels: Field required"),
        (card_with(labels=list(LABELS[:3]), parents=None), "correct the number of labels"),
        (card_with(inputs=features_with(deltas=2)), "front end has no such option"),
        (card_with(inputs=features_with(mel_scale="bark")), "'slaney', 'htk' or 'kaldi'"),
        (card_with(inputs=features_with(n_fft=64)), "contain no bin of a 64-point transform"),
        (card_with(inputs=features_with(fmax=12000.0)), "exceeds half the sample rate"),
        (card_with(inputs=features_with(hop_length=1100)), "do not start within"),
        (card_with(outputs={**CARD["outputs"], "beats": {"name": "b"}}), "the service does not know this output"),
        (card_with(outputs={"scores": {"name": "genre", "yields": "logits"}}), "set yields to probabilities"),
        (card_with(outputs={"scores": {"name": "labels", "yields": "logits"}}), "the outputs of the network are"),
        (card_with(outputs={}), "outputs.scores: Field required"),
        (card_with(sha256="0"), "remove sha256, which the import writes itself"),
        (card_with(name="Their Model"), "name: String should match"),
        (card_with(schema_version=1), "schema_version: Input should be 2"),
    ],
)
def test_cards(tmp_path: Path, card: dict[str, Any], complaint: str) -> None:
    file = tmp_path / "theirs.onnx"
    onnx.save(classifier(), file)
    assert complaint in refusal(file, write_card(tmp_path, card))


def test_a_label_that_is_not_a_tag(tmp_path: Path) -> None:
    file = tmp_path / "theirs.onnx"
    onnx.save(classifier(last="Sigmoid", output="tag"), file)
    card = write_card(tmp_path, card_with(labels=["jazz", "funk"], parents=None, outputs=TAG_OUTPUTS))
    assert "['funk'] are not: remove them" in refusal(file, card)


def test_files_that_are_no_cards(tmp_path: Path) -> None:
    file, card = tmp_path / "theirs.onnx", tmp_path / "card.json"
    onnx.save(classifier(), file)
    card.write_text("{")
    assert "is not JSON" in refusal(file, card)
    card.write_text("[]")
    assert "does not contain a card" in refusal(file, card)
    assert "No such file" in refusal(file, tmp_path / "none.json")


TAGS = {"outputs": TAG_OUTPUTS, "labels": None, "parents": None}


def with_layer_in_training() -> onnx.ModelProto:
    """Return the classifier with a normalisation over the batch."""
    model = classifier(last="Identity", output="unscaled")
    node = onnx.helper.make_node("ReduceMean", ["unscaled"], ["of_batch"], axes=[0], keepdims=1)
    model.graph.node.extend([node, onnx.helper.make_node("Sub", ["unscaled", "of_batch"], ["genre"])])
    model.graph.output[0].name = "genre"
    return model


@pytest.mark.parametrize(
    ("model", "changes", "complaint"),
    [
        (classifier(shape=("N", 48000)), {}, "cannot feed networks with another kind of input, such as raw audio"),
        (classifier(shape=("N", FRAMES, 80)), {}, f"{FRAMES} frames with {MELS} mel bands"),
        (classifier(shape=(1, FRAMES, MELS)), {}, "accepts batches of 1 only"),
        (classifier(shape=("N", None, None)), {}, "pass --layout with one of 'frames,mels' and 'mels,frames'"),
        (classifier(shape=("N", FRAMES, MELS), element=TensorProto.DOUBLE), {}, "is not float32"),
        (classifier(shape=("N", MELS, FRAMES)), {}, "onnxruntime cannot run the network"),
        (classifier(last="Sigmoid"), {}, "describe it as tags, from which the import makes scores"),
        (classifier(last="Identity"), {}, "set yields to logits, if a softmax is missing"),
        (classifier(last="Identity", output="tag"), TAGS, "set yields to logits, if a sigmoid is missing"),
        (
            classifier(last="Sigmoid", output="tag"),
            {**TAGS, "outputs": {"tags": {**TAG_OUTPUTS["tags"], "yields": "logits"}}},
            "is the result of Sigmoid",
        ),
        (classifier(last="Log"), {}, "contains values that are not numbers"),
        (with_layer_in_training(), {"outputs": {"scores": {"name": "genre", "yields": "logits"}}}, "inference mode"),
    ],
)
def test_onnx_networks(tmp_path: Path, model: onnx.ModelProto, changes: dict[str, Any], complaint: str) -> None:
    file = tmp_path / "theirs.onnx"
    onnx.save(model, file)
    assert complaint in refusal(file, write_card(tmp_path, card_with(**changes)))


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "theirs.onnx"
    onnx.save(classifier(), file, save_as_external_data=True, size_threshold=0)
    assert "keeps its weights in other files" in refusal(file, write_card(tmp_path, CARD))


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    card = write_card(tmp_path, CARD)
    for name, content, complaint in (
        ("a.onnx", b"not a network", "is not a valid ONNX file"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras model in HDF5"),
        ("a.pkl", pickle.dumps({"weights": 1}), "pickled Python objects"),
    ):
        (tmp_path / name).write_bytes(content)
        assert complaint in refusal(tmp_path / name, card)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "is not a network that can be imported" in refusal(tmp_path / "a.zip", card)
    assert "No such file" in refusal(tmp_path / "none.onnx", card)


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_networks_are_refused_without_running_their_code(tmp_path: Path) -> None:
    card, trap = write_card(tmp_path, CARD), tmp_path / "trap"
    file = tmp_path / "theirs.pt"
    for content in (Code(trap), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).state_dict()):
        torch.save(content, file)
        assert "pickled Python objects" in refusal(file, card)
    torch.save(Code(trap), file, _use_new_zipfile_serialization=False)
    assert "pickled Python objects" in refusal(file, card)
    file.write_bytes(pickle.dumps(Code(trap), protocol=0))
    assert "is not a valid ONNX file" in refusal(file, card)
    assert not trap.exists()


def test_exported_programs_are_refused_because_pytorch_unpickles_them(tmp_path: Path) -> None:
    file = tmp_path / "theirs.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
    assert "torch.onnx.export(torch.export.load(" in refusal(file, write_card(tmp_path, CARD))


class Writer(torch.nn.Module):
    """Writes its input to a file, which TorchScript can do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "trap")
        return x


class Two(torch.nn.Module):
    """Returns two outputs."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean(1), x.mean(2)


class FirstOfBatch(torch.nn.Module):
    """Returns the outputs of the first window for all of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x.mean(1)[:1, :5].expand(x.shape[0], 5), 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("network", "arguments", "complaint"),
    [
        (Writer(), [], "the operator 'save', which may access files"),
        (Two(), [], "returns 2 outputs, and the card describes 1: genre"),
        (torch.nn.Linear(7, 5), [], "pass --layout"),
        (FirstOfBatch(), [], "changes with the other windows of its batch"),
        (FirstOfBatch(), ["--layout", "time,mels"], "there is no layout time,mels; choose from frames,mels "),
    ],
)
def test_torchscript_networks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: torch.nn.Module,
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.save(torch.jit.script(network), "theirs.pt")
    found = refusal(tmp_path / "theirs.pt", write_card(tmp_path, CARD), *arguments)
    assert complaint in found
    assert not (tmp_path / "trap").exists()


def test_the_folder_of_the_published_models_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "theirs.onnx"
    onnx.save(classifier(), file)
    before = sorted(BUILT_IN_MODELS.iterdir())
    for folder in (BUILT_IN_MODELS, BUILT_IN_MODELS / "wholetrack-crnn"):
        found = refusal(file, write_card(tmp_path, CARD), "--models", str(folder))
        assert "pass --models with a folder of your own" in found
    assert sorted(BUILT_IN_MODELS.iterdir()) == before


def test_licence_and_source_are_required(tmp_path: Path) -> None:
    file, card = tmp_path / "theirs.onnx", write_card(tmp_path, CARD)
    onnx.save(classifier(), file)
    for missing, given in (("licence", "source"), ("source", "licence")):
        done = CliRunner().invoke(app, ["import", "network", str(file), "--card", str(card), f"--{given}", "x"])
        assert done.exit_code == 2
        assert f"--{missing}" in re.sub(r"\x1b\[[0-9;]*m", "", done.output)
