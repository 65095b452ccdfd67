"""Model bundles on disk: ``models/<name>/<version>/{model.onnx, model.json, golden.npz, CARD.md}``."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wholetrack.contracts import ModelCard, OutputsSpec, Rows, read_model_card
from wholetrack.errors import StartupError
from wholetrack.settings import ModelVersions

_PACKAGE = Path(__file__).parents[1]
BUILT_IN_MODELS = _PACKAGE / "models" if (_PACKAGE / "models").is_dir() else _PACKAGE.parents[1] / "models"
"""The bundles that come with the package: two of them inside a wheel, all of ``models/`` in a checkout."""
MODEL_FILE = "model.onnx"
CARD_FILE = "model.json"

# At the root of an ext4 volume, readable by root only.
_IGNORED = {"lost+found"}


@dataclass(frozen=True, slots=True)
class Golden:
    """Input windows and the outputs that the network must give for them.

    Attributes:
        windows: Normalised windows, ``[n, frames, n_mels]`` for each input.
        outputs: Expected outputs in the order of ``card.outputs.names``: probabilities, and embeddings of unit length.
    """

    windows: Rows
    outputs: Rows


@dataclass(frozen=True, slots=True)
class Bundle:
    """A published model, checked and loaded into memory.

    Attributes:
        card: Contents of ``model.json``.
        document: Contents of ``model.json`` in the version of the contract in which it was written.
        onnx: The network in float32.
        golden: Input and expected output of the self-test.
        int8: The network quantised to 8-bit integers, if there is one.
    """

    card: ModelCard
    document: dict[str, Any]
    onnx: bytes
    golden: Golden
    int8: bytes | None = None


def load_bundles(*folders: Path, versions: ModelVersions = ModelVersions.NEWEST) -> dict[str, Bundle]:
    """Load the models in the given folders.

    Args:
        folders: Each with ``<name>/<version>/model.json`` below it. Where two of them hold the same version of a
            model, the later folder takes precedence.
        versions: Whether to load the older versions, too.

    Returns:
        The newest version of every model by its name, and the older ones by ``NAME@VERSION``.

    Raises:
        StartupError: If a folder holds no model or something else, or a bundle does not satisfy the contract.
    """
    found: dict[str, dict[Version, Path]] = {}
    for folder in folders:
        for bundle in _bundle_folders(folder):
            found.setdefault(bundle.parent.name, {})[_version(bundle)] = bundle
    loaded = {}
    for name, by_version in found.items():
        newest, *older = (by_version[version] for version in sorted(by_version, reverse=True))
        loaded[name] = load_bundle(newest)
        if versions is ModelVersions.ALL:
            loaded |= {f"{name}@{folder.name}": load_bundle(folder) for folder in older}
    return loaded


def load_bundle(folder: Path) -> Bundle:
    """Read and check one bundle.

    Raises:
        StartupError: If the bundle does not satisfy the contract; the message says which part.
    """
    try:
        card, document = read_model_card((folder / CARD_FILE).read_bytes())
        onnx = _read_checked(folder / MODEL_FILE, card.sha256)
        golden = _golden(_read_checked(folder / card.golden.file, card.golden.sha256), card)
        int8 = _read_checked(folder / card.int8.file, card.int8.sha256) if card.int8 else None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {_message(e)}" for e in error.errors())
        raise StartupError(f"{folder / CARD_FILE} is invalid: {problems}") from error
    except (OSError, ValueError) as error:
        raise StartupError(f"the bundle {folder} cannot be served: {error}") from error
    if (card.name, card.version) != (folder.parent.name, folder.name):
        raise StartupError(f"{folder / CARD_FILE} states a different name or version: {card.name}/{card.version}")
    return Bundle(card, document, onnx, golden, int8)


def _bundle_folders(folder: Path) -> list[Path]:
    """Return all folders ``<name>/<version>`` below a folder.

    A folder that looks like a bundle and is none is an error. If it were skipped, an older version would be served in
    its place, or none.
    """
    try:
        versions = {name: _subfolders(name) for name in _subfolders(folder)}
        if not versions:
            raise StartupError(f"no model in {folder}: expected <name>/<version>/{CARD_FILE} there")
        for name, found in versions.items():
            if not found:
                raise StartupError(f"no version of a model in {name}: expected <version>/{CARD_FILE} there")
        bundles = [bundle for found in versions.values() for bundle in found]
        for bundle in bundles:
            if not (bundle / CARD_FILE).is_file():
                raise StartupError(f"{bundle} is not a bundle: it has no {CARD_FILE}")
    except OSError as error:
        raise StartupError(f"the folder of models {folder} cannot be read: {error}") from error
    return bundles


def _subfolders(folder: Path) -> list[Path]:
    # A link to a folder that is missing is not a file either, and is reported.
    return sorted(
        path for path in folder.iterdir() if not (path.is_file() or path.name.startswith(".") or path.name in _IGNORED)
    )


def _version(folder: Path) -> Version:
    try:
        return Version(folder.name)
    except InvalidVersion as error:
        raise StartupError(f"{folder}: a bundle's folder must be named after its version, such as 1 or 1.2") from error


def _read_checked(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"the SHA-256 of {path.name} is {found}, {CARD_FILE} says {sha256}")
    return content


def _message(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden" and error["loc"][0] == "outputs" and len(error["loc"]) == 2:
        known = ", ".join(OutputsSpec.model_fields)
        return f"the service does not know this output; it knows {known}: remove it, also from the network"
    return error["msg"]


def _golden(content: bytes, card: ModelCard) -> Golden:
    inputs, outputs = golden_names(card)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if missing := [name for name in (*inputs, *outputs) if name not in arrays]:
            raise ValueError(f"{card.golden.file} has no {' and no '.join(missing)}")
        windows = Rows(tuple(arrays[name].astype(np.float32) for name in inputs))
        golden = Golden(windows, Rows(tuple(arrays[name].astype(np.float32) for name in outputs)))
    n_windows = len(golden.windows)
    shapes = [(n_windows, *shape) for shape in (*(entry.shape[1:] for entry in card.inputs), *card.output_shapes)]
    found = [array.shape for array in (*golden.windows.arrays, *golden.outputs.arrays)]
    if found != shapes:
        expected = ", ".join(f"{name} {shape}" for name, shape in zip((*inputs, *outputs), shapes, strict=True))
        raise ValueError(f"the arrays in {card.golden.file} do not have the shapes {expected}")
    if not n_windows:
        raise ValueError(f"{card.golden.file} contains no windows")
    return golden


def golden_names(card: ModelCard) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the arrays in the golden file: of the inputs, and of the outputs.

    A network with one input and scores only has the names of version 1.
    """
    names = ("probabilities", *card.outputs.kinds[1:])
    if len(card.inputs) == 1:
        return ("windows",), names
    return tuple(f"windows.{entry.name}" for entry in card.inputs), names
