"""Makes a bundle of an imported network, after the service's own session has accepted it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import GoldenSpec, ModelCard, Rows, separate_windows, unit_length
from wholetrack.errors import StartupError
from wholetrack.features.inputs import InputFeatures
from wholetrack.inference.bundle import BUILT_IN_MODELS, MODEL_FILE, Bundle, Golden, golden_names
from wholetrack.inference.session import open_session
from wholetrack.settings import Settings
from wholetrack_training.errors import NetworkImportError
from wholetrack_training.files import npz_bytes
from wholetrack_training.importing.card_text import card_text
from wholetrack_training.importing.checks import Outputs, check_outputs, max_difference, open_network, run_network
from wholetrack_training.importing.draft import Draft
from wholetrack_training.importing.graph import add_scores, check_names, declare_outputs, feed_windows, opset_of
from wholetrack_training.importing.network_files import Network
from wholetrack_training.publishing.bundles import write_bundle
from wholetrack_training.publishing.golden import golden_sound
from wholetrack_training.publishing.model_card import CARD_TEXT_FILE

_GOLDEN_TOLERANCE = 1e-3
_SCORES = (
    "the softmax of the logits of the tags that are genres, which is the probability of each if exactly one of them "
    "applies and tags are independent of each other"
)


def import_network(network: Network, draft: Draft, *, licence: str, origin: dict[str, Any], models: Path) -> Path:
    """Check a network, and write its bundle.

    Args:
        network: The network.
        draft: Its card.
        licence: Its licence, as an SPDX expression.
        origin: Where it came from: ``source``, ``file`` and ``file_sha256``.
        models: Folder of all bundles; not the one that the project publishes.

    Returns:
        Folder of the bundle.

    Raises:
        NetworkImportError: If the network is not what the card says, or the service cannot run it.
    """
    _check_folder(models)
    model, card = network.model, draft.card
    check_names(model, draft)
    layouts = feed_windows(model, draft, network.layouts)
    add_scores(model, draft)
    windows = golden_windows(card)
    session = open_network(model, draft)
    outputs = run_network(session, draft, windows)
    check_outputs(session, model, draft, [np.concatenate((array, array[:, ::-1])) for array in windows])
    difference = max_difference(network, outputs, draft, layouts, windows)
    declare_outputs(model, draft)
    onnx = model.SerializeToString(deterministic=True)
    golden = golden_outputs(outputs, card)
    inputs, names = golden_names(card)
    golden_file = npz_bytes(dict(zip((*inputs, *names), (*windows, *golden.arrays), strict=True)))
    imported = {
        **origin,
        "format": network.format,
        "layouts": [str(layout) for layout in layouts],
        **({} if difference is None else {"max_difference": difference}),
        **({"scores": _SCORES} if draft.genre_tags else {}),
    }
    final = _completed(
        card, licence=licence, imported=imported, onnx=onnx, opset=opset_of(model), golden_file=golden_file
    )
    try:
        open_session(Bundle(final, final.document(), onnx, Golden(Rows(tuple(windows)), golden)), Settings())
    except StartupError as error:
        raise NetworkImportError(f"the service cannot run the network: {error}") from error
    files = {MODEL_FILE: onnx, final.golden.file: golden_file, CARD_TEXT_FILE: card_text(final).encode()}
    folder = write_bundle(final, files, models)
    # Networks of others are not to be committed by accident, wherever their folder is.
    (folder.parent / ".gitignore").write_text("*\n")
    return folder


def _completed(
    card: ModelCard, *, licence: str, imported: dict[str, Any], onnx: bytes, opset: int, golden_file: bytes
) -> ModelCard:
    """Return the card with what is known after the import, in place of the placeholders."""
    golden = GoldenSpec(sha256=hashlib.sha256(golden_file).hexdigest(), tolerance=_GOLDEN_TOLERANCE)
    known = {
        "licence": licence,
        "trained_on": {**card.trained_on, "imported": imported},
        "sha256": hashlib.sha256(onnx).hexdigest(),
        "golden": golden,
        "opset": opset,
    }
    return card.model_copy(update=known)


def golden_windows(card: ModelCard) -> list[NDArray[np.float32]]:
    """Return the normalised windows of the golden sound, for each input ``[n, frames, n_mels]``."""
    features, sound = InputFeatures(card), golden_sound(card.audio.sample_rate)
    stream = features.stream(features.grid(None))
    blocks = [separate_windows(features.normalised(block)) for block in (stream.push(sound), stream.finish())]
    # Half precision is sufficient here and halves the file.
    return [array.astype(np.float16).astype(np.float32) for array in Rows.joined(blocks).arrays]


def golden_outputs(outputs: Outputs, card: ModelCard) -> Rows:
    """Return the outputs as the service is expected to interpret them: probabilities, and vectors of unit length."""
    spec = card.outputs
    scores = outputs[spec.scores.name].astype(np.float64)
    if spec.scores.yields == "logits":
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores = powers / powers.sum(axis=-1, keepdims=True)
    found = [scores]
    if spec.tags:
        tags = outputs[spec.tags.name].astype(np.float64)
        found.append(tags if spec.tags.yields == "probabilities" else 1 / (1 + np.exp(-tags)))
    if spec.embedding:
        found.append(unit_length(outputs[spec.embedding.name]).astype(np.float64))
    return Rows(tuple(array.astype(np.float32) for array in found))


def _check_folder(models: Path) -> None:
    if models.resolve().is_relative_to(BUILT_IN_MODELS.resolve()):
        raise NetworkImportError(
            f"{models} is the folder of the models that wholetrack publishes, and images contain it; imported networks "
            "stay out of both: pass --models with a folder of your own"
        )
