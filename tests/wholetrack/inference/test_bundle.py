"""A bundle that does not satisfy the contract is refused at start-up, with a sentence that says what is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wholetrack.errors import StartupError
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundle, load_bundles
from wholetrack.settings import DeviceChoice, Settings
from wholetrack.startup import build_pipeline


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(BUILT_IN_MODELS / "wholetrack-crnn-gtzan" / "1", tmp_path / "wholetrack-crnn-gtzan" / "1")
    )


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((bundle / "model.json").read_text())
    change(card)
    (bundle / "model.json").write_text(json.dumps(card))


def test_the_built_in_models_satisfy_the_contract() -> None:
    for name, bundle in load_bundles(BUILT_IN_MODELS).items():
        assert bundle.card.name == name
        assert (BUILT_IN_MODELS / name / bundle.card.version / "CARD.md").is_file()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda card: card.update(schema_version=3), "schema_version is 3, and this service reads 1 and 2: update the"),
        (lambda card: card.pop("labels"), "labels: Field required"),
        (lambda card: card.update(labels=["rock", "rock"]), "labels must be distinct"),
        (lambda card: card.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda card: card["windows"].update(frames=40), "is not .windows.frames, features.n_mels. .40, 128."),
        (lambda card: card["windows"].update(hop_s=4.0), "hop_s 4.0 must not exceed window_s 3.0"),
        (lambda card: card["features"].update(hop_length=512), "exactly one of frames_per_second and hop_length"),
        (lambda card: card["features"].update(fmax=20_000), "exceeds half the sample rate"),
        (lambda card: card["features"].update(normalisation={"kind": "magic"}), "normalisation"),
        (lambda card: card["features"].update(log="ln"), "needs features in dB, not ln"),
        (lambda card: card.update(sha256="0" * 64), "the SHA-256 of model.onnx is"),
        (lambda card: card["golden"].update(sha256="0" * 64), "the SHA-256 of golden.npz is"),
        (lambda card: card["int8"].update(sha256="0" * 64), "the SHA-256 of model.int8.onnx is"),
        (lambda card: card.update(labels=["rock", "jazz"]), "the arrays in golden.npz do not have the shapes"),
        (lambda card: card.update(name="other"), "states a different name or version: other/1"),
    ],
)
def test_the_message_names_the_broken_part_of_the_contract(
    bundle: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    rewrite(bundle, change)
    with pytest.raises(StartupError, match=complaint):
        load_bundle(bundle)


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    """Replace the content of a file and its hash in ``model.json``."""
    (bundle / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    rewrite(
        bundle,
        lambda card: card.update(sha256=digest) if name == "model.onnx" else card["golden"].update(sha256=digest),
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda bundle: rewrite(bundle, lambda card: card["onnx"].update(input="x")),
            "input 'windows' that model",
        ),
        (
            lambda bundle: rewrite(bundle, lambda card: card["onnx"].update(output="x")),
            "output 'logits' that model",
        ),
        (
            lambda bundle: replace_file(bundle, "model.onnx", b"junk"),
            "wholetrack-crnn-gtzan: model.onnx is not a valid network",
        ),
        (
            lambda bundle: replace_file(bundle, "golden.npz", npz(windows=np.zeros((1, 39, 128)))),
            "golden.npz has no probabilities",
        ),
        (
            lambda bundle: replace_file(
                bundle, "golden.npz", npz(windows=np.zeros((0, 39, 128)), probabilities=np.zeros((0, 10)))
            ),
            "golden.npz contains no windows",
        ),
        (lambda bundle: replace_file(bundle, "golden.npz", b"junk"), "cannot be served"),
    ],
)
def test_a_network_that_contradicts_model_json_prevents_startup(
    bundle: Path, change: Callable[[Path], None], complaint: str
) -> None:
    change(bundle)
    with pytest.raises(StartupError, match=complaint):
        build_pipeline(Settings(models_dir=bundle.parent.parent, device=DeviceChoice.CPU))


def npz(**arrays: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_the_message_names_a_missing_file(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    with pytest.raises(StartupError, match="model.onnx"):
        load_bundle(bundle)


def test_an_empty_folder_of_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no model in"):
        load_bundles(tmp_path)


def test_the_newest_version_is_served(bundle: Path) -> None:
    for version in ("9", "10"):
        copy = Path(shutil.copytree(bundle, bundle.parent / version))
        rewrite(copy, lambda card, version=version: card.update(version=version))  # type: ignore[misc]
    assert load_bundles(bundle.parent.parent)["wholetrack-crnn-gtzan"].card.version == "10"


def test_folders_add_up_and_the_later_one_takes_precedence(bundle: Path) -> None:
    rewrite(bundle, lambda card: card.update(summary="mine"))
    found = load_bundles(BUILT_IN_MODELS, bundle.parent.parent)
    assert found.keys() == load_bundles(BUILT_IN_MODELS).keys()
    assert found["wholetrack-crnn-gtzan"].card.summary == "mine"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda bundle: shutil.copytree(bundle, bundle.with_name("2"), ignore=lambda *_: ["model.json"]), "2 is not"),
        (lambda bundle: bundle.with_name("2").mkdir(), "2 is not a bundle: it has no model.json"),
        (lambda bundle: bundle.with_name("2").symlink_to("missing"), "2 is not a bundle: it has no model.json"),
        (lambda bundle: shutil.copytree(bundle, bundle.parents[1] / "other"), "no version of a model in .*other"),
        (lambda bundle: (bundle.parents[1] / "other").symlink_to("missing"), "No such file or directory"),
    ],
)
def test_a_folder_that_holds_no_bundle_is_not_skipped(
    bundle: Path, change: Callable[[Path], None], complaint: str
) -> None:
    """An older version would be served in place of an incomplete one."""
    change(bundle)
    with pytest.raises(StartupError, match=complaint):
        load_bundles(bundle.parents[1])


def test_files_and_hidden_folders_beside_bundles_are_ignored(bundle: Path) -> None:
    (bundle.parents[1] / "README.md").touch()
    (bundle.parent / "notes.txt").touch()
    for name in (".git", "lost+found"):
        (bundle.parents[1] / name).mkdir()
    assert load_bundles(bundle.parents[1]).keys() == {"wholetrack-crnn-gtzan"}


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read: .*No such file"):
        load_bundles(tmp_path / "missing")


def test_a_folder_without_a_version_is_refused(bundle: Path) -> None:
    shutil.copytree(bundle, bundle.with_name("latest"))
    with pytest.raises(StartupError, match="named after its version"):
        load_bundles(bundle.parent.parent)


def test_an_unknown_default_model_prevents_startup() -> None:
    with pytest.raises(StartupError, match="the default model 'nobody' is not among the models found"):
        build_pipeline(Settings(default_model="nobody", device="cpu"))


def test_impossible_features_prevent_startup(bundle: Path) -> None:
    rewrite(bundle, lambda card: card["features"].update(n_fft=256))
    with pytest.raises(StartupError, match="contain no bin"):
        build_pipeline(Settings(models_dir=bundle.parent.parent, device="cpu"))
