"""Publishing of a head as a bundle that shares the network of another one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from wholetrack.contracts import BaseModelSpec, CalibrationSpec, HeadCard, HeadInput, HeadSpec, ModelCard
from wholetrack.inference.bundle import (
    BUILT_IN_MODELS,
    CARD_FILE,
    Bundle,
    find_bundles,
    holds_head,
    load_bundle,
    load_head,
)
from wholetrack.inference.head import Head
from wholetrack.served_model import model_key
from wholetrack_training.errors import PublishingError
from wholetrack_training.files import json_bytes, npz_bytes
from wholetrack_training.publishing.bundles import write_bundle
from wholetrack_training.publishing.model_card import CARD_TEXT_FILE
from wholetrack_training.results.head_figures import HeadFigures

REPORT_FILE = "report.json"


def find_base(name: str, models: Path) -> tuple[str, Bundle]:
    """Return the key and the bundle of the model whose network a head is to use.

    Args:
        name: ``NAME`` or ``NAME@VERSION``.
        models: Folder of bundles to search besides the built-in ones; it may be missing.

    Raises:
        PublishingError: If there is no such model, or it yields no embedding.
        StartupError: If a bundle does not satisfy the contract.
    """
    # Other heads are not loaded, because they may need to be fitted again.
    paths = find_bundles(BUILT_IN_MODELS, *([models] if _has_models(models) else []))
    networks = {key: path for key, path in paths.items() if not holds_head(path)}
    key = model_key(name, {key: path.name for key, path in networks.items()})
    if key is None:
        raise PublishingError(
            f"there is no model {name} with a network, neither among the built-in ones nor in {models}; choose one "
            f"with --base: {_with_embedding(networks)}"
        )
    bundle = load_bundle(networks[key])
    if bundle.card.outputs.embedding is None:
        raise PublishingError(
            f"{bundle.card.name} {bundle.card.version} yields no embedding, which a head needs; choose a model that "
            f"does with --base: {_with_embedding(networks)}"
        )
    return key, bundle


def check_name(name: str, version: str, models: Path) -> None:
    """Check that a head may have a name, before the work begins.

    Raises:
        PublishingError: If the name is invalid, that of a built-in model, or that of a network.
    """
    patterns = HeadCard.model_json_schema()["properties"]
    for field, value in (("name", name), ("version", version)):
        if not re.fullmatch(patterns[field]["pattern"], value):
            example = (
                "lower-case letters, digits, dots and hyphens, such as my-genres" if field == "name" else "1 or 1.2"
            )
            raise PublishingError(f"--{field} {value} is not possible: use {example}")
    built_in = sorted(folder.name for folder in BUILT_IN_MODELS.iterdir() if folder.is_dir())
    if name in built_in:
        raise PublishingError(f"{name} is the name of a built-in model; choose another one with --name")
    folder = models / name / version
    if (folder / CARD_FILE).is_file() and not holds_head(folder):
        raise PublishingError(f"{folder} holds a model with a network, not a head; choose another name with --name")


def source_of(inputs: Iterable[HeadInput], base: ModelCard) -> str:
    """Return what the genres of a head are computed from, such as "the embedding of triplet 1"."""
    return f"{' and '.join(f'the {kind}' for kind in inputs)} of {base.name} {base.version}"


def publish_head(
    head: Head,
    base: Bundle,
    figures: HeadFigures,
    *,
    name: str,
    version: str,
    licence: str,
    trained_on: Mapping[str, object],
    report: str,
    models: Path,
) -> Path:
    """Write the bundle of a head, which replaces an older head of the same name and version.

    Args:
        head: The weights, and the outputs of the network that they belong to.
        base: The bundle whose network it uses.
        figures: Figures in cross-validation.
        name: Name of the head.
        version: Version of the head.
        licence: Licence of the weights, as an SPDX expression.
        trained_on: Facts about the recordings.
        report: The report in Markdown.
        models: Folder of the bundles.

    Returns:
        Folder of the bundle, after the service's loader has accepted it.
    """
    content = npz_bytes({"weights": head.weights, "bias": head.bias})
    network = base.card
    card = HeadCard(
        schema_version=2,
        name=name,
        version=version,
        summary=f"{len(figures.labels)} genres, from {source_of(head.inputs, network)}",
        labels=figures.labels,
        licence=licence,
        trained_on=dict(trained_on),
        metrics={key: value for key, value in figures.as_dict().items() if key not in {"confusion", "recall"}},
        calibration=CalibrationSpec(temperature=figures.temperature) if figures.is_calibrated else None,
        head_of=BaseModelSpec(name=network.name, version=network.version, sha256=network.sha256),
        head=HeadSpec(sha256=hashlib.sha256(content).hexdigest(), inputs=head.inputs),
    )
    files = {
        card.head.file: content,
        CARD_TEXT_FILE: report.encode(),
        REPORT_FILE: json_bytes(figures.as_dict()),
    }
    return write_bundle(card, files, models, load=partial(load_head, base=base, key=network.name))


def _with_embedding(networks: Mapping[str, Path]) -> str:
    """Return the names of the models that yield an embedding."""
    found = [key for key, path in networks.items() if load_bundle(path).card.outputs.embedding]
    return ", ".join(sorted(found))


def _has_models(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())
