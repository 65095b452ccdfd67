"""Model bundles on disk: ``models/<name>/<version>/{model.onnx, model.json, golden.npz, CARD.md}``.

The bundle of a head has ``head.npz`` in place of a network, and uses that of another bundle.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wholetrack.contracts import (
    ModelCard,
    OutputsSpec,
    PublishedSpec,
    Rows,
    is_head,
    read_head_card,
    read_model_card,
)
from wholetrack.errors import StartupError
from wholetrack.inference.head import Head, read_head
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
        strips: The network as a graph for strips of windows, if there is one.
        head: The head, if the model is one. The network is then that of another bundle.
        base: Key of the model whose network a head uses.
    """

    card: ModelCard
    document: dict[str, Any]
    onnx: bytes
    golden: Golden
    int8: bytes | None = None
    strips: bytes | None = None
    head: Head | None = None
    base: str | None = None


def load_bundles(*folders: Path, versions: ModelVersions = ModelVersions.NEWEST) -> dict[str, Bundle]:
    """Load the models in the given folders.

    Args:
        folders: Each with ``<name>/<version>/model.json`` below it. Where two of them hold the same version of a
            model, the later folder takes precedence.
        versions: Whether to load the older versions, too.

    Returns:
        The newest version of every model by its name, and the older ones by ``NAME@VERSION``. Older versions whose
        network a head uses are always among them.

    Raises:
        StartupError: If a folder holds no model or something else, or a bundle does not satisfy the contract.
    """
    paths = find_bundles(*folders)
    chosen = [key for key in paths if versions is ModelVersions.ALL or "@" not in key]
    heads = [key for key in chosen if holds_head(paths[key])]
    loaded = {key: load_bundle(paths[key]) for key in chosen if key not in heads}
    for key in heads:
        base = _key_of_base(paths[key], paths)
        if base not in loaded:
            loaded[base] = load_bundle(paths[base])
        loaded[key] = load_head(paths[key], loaded[base], key=base)
    return loaded


def find_bundles(*folders: Path) -> dict[str, Path]:
    """Return the folders of all bundles: the newest version of every model by its name, others by ``NAME@VERSION``.

    Args:
        folders: As for :func:`load_bundles`.

    Raises:
        StartupError: If a folder holds no model or something else.
    """
    found: dict[str, dict[Version, Path]] = {}
    for folder in folders:
        for bundle in _bundle_folders(folder):
            found.setdefault(bundle.parent.name, {})[_version(bundle)] = bundle
    paths = {}
    for name, by_version in found.items():
        newest, *older = (by_version[version] for version in sorted(by_version, reverse=True))
        paths[name] = newest
        paths |= {f"{name}@{folder.name}": folder for folder in older}
    return paths


def load_bundle(folder: Path) -> Bundle:
    """Read and check one bundle with a network.

    Raises:
        StartupError: If the bundle does not satisfy the contract; the message says which part.
    """
    with _described(folder):
        content = (folder / CARD_FILE).read_bytes()
        if is_head(content):
            raise ValueError("it is a head, which has no network of its own")
        card, document = read_model_card(content)
        onnx = _read_checked(folder / MODEL_FILE, card.sha256)
        golden = _golden(_read_checked(folder / card.golden.file, card.golden.sha256), card)
        int8 = _read_checked(folder / card.int8.file, card.int8.sha256) if card.int8 else None
        strips = _read_checked(folder / card.strips.file, card.strips.sha256) if card.strips else None
    _check_names(card, folder)
    return Bundle(card, document, onnx, golden, int8, strips)


def holds_head(folder: Path) -> bool:
    """Return whether a folder holds the bundle of a head.

    Raises:
        StartupError: If its ``model.json`` cannot be read.
    """
    with _described(folder):
        return is_head((folder / CARD_FILE).read_bytes())


def load_head(folder: Path, base: Bundle, *, key: str) -> Bundle:
    """Read and check the bundle of a head.

    Args:
        folder: Folder of the head.
        base: The bundle whose network it uses.
        key: Key of that model.

    Raises:
        StartupError: If the bundle does not satisfy the contract, or does not fit the network.
    """
    with _described(folder):
        card, document = read_head_card((folder / CARD_FILE).read_bytes())
        if base.head is not None:
            raise ValueError(f"it uses {key}, which is a head itself: fit it to a model with a network")
        if card.head_of.sha256 != base.card.sha256:
            raise ValueError(
                f"it was fitted to another network of {base.card.name} {base.card.version}: fit it again with "
                "wholetrack-train head, or serve that network"
            )
        head = read_head(_read_checked(folder / card.head.file, card.head.sha256), card, base.card)
        joined = card.joined_with(base.card)
    _check_names(card, folder)
    return replace(base, card=joined, document=document, head=head, base=key)


def _key_of_base(folder: Path, known: Mapping[str, Path]) -> str:
    """Return the key of the model whose network a head uses.

    Raises:
        StartupError: If there is no such model.
    """
    with _described(folder):
        spec = read_head_card((folder / CARD_FILE).read_bytes())[0].head_of
        wanted = {key for key, path in known.items() if (path.parent.name, path.name) == (spec.name, spec.version)}
        if not wanted:
            raise ValueError(
                f"it uses the network of {spec.name} {spec.version}, which is not among the models found "
                f"({', '.join(sorted(known))}): add that bundle, or fit the head again with wholetrack-train head"
            )
    return wanted.pop()


@contextmanager
def _described(folder: Path) -> Iterator[None]:
    """Turn the errors of reading a bundle into sentences.

    Raises:
        StartupError: In place of any of them.
    """
    try:
        yield
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {_message(e)}" for e in error.errors())
        raise StartupError(f"{folder / CARD_FILE} is invalid: {problems}") from error
    except (OSError, ValueError) as error:
        raise StartupError(f"the bundle {folder} cannot be served: {error}") from error


def _check_names(card: PublishedSpec, folder: Path) -> None:
    if (card.name, card.version) != (folder.parent.name, folder.name):
        raise StartupError(f"{folder / CARD_FILE} states a different name or version: {card.name}/{card.version}")


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
