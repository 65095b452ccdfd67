"""The networks of the package ``musicnn`` (Pons and Serra 2019), read without its dependencies.

The package has two taggers of the same form, trained on the Million Song Dataset and on MagnaTagATune. Its code is not
run: the weights come from the TensorFlow checkpoints, the labels from the source text.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from wholetrack_training.errors import NetworkImportError
from wholetrack_training.export.to_onnx import export_onnx_graph
from wholetrack_training.importing.draft import Draft, draft_of
from wholetrack_training.importing.layouts import Layout
from wholetrack_training.importing.network_files import Arrays, Network
from wholetrack_training.importing.tensorflow_checkpoint import read_checkpoint
from wholetrack_training.systems.taggers import front_ends, musicnn
from wholetrack_training.systems.taggers.weights import PublishedWeights

VERSION = "0.1.0"
"""Version of the package, and of the bundles."""
LICENCE = "ISC"
SOURCE = f"https://pypi.org/project/musicnn/{VERSION}/"

_INPUT, _TAGS, _EMBEDDING = "windows", "tag_logits", "embedding"
_EMBEDDING_LENGTH = 200
_SAMPLE_RATE = 16000
# As in the package, windows do not overlap by default.
_SECONDS = 3.0
_INSTALL = f"pip install --no-deps musicnn=={VERSION}"


class Variant(StrEnum):
    """Which of the two networks."""

    MSD = "msd"
    MTT = "mtt"


@dataclass(frozen=True, slots=True)
class _Published:
    folder: str
    labels: str
    data: str


_PUBLISHED = {
    Variant.MSD: _Published("MSD_musicnn", "MSD_LABELS", "Million Song Dataset with tags of Last.fm"),
    Variant.MTT: _Published("MTT_musicnn", "MTT_LABELS", "MagnaTagATune"),
}

_KINDS: Mapping[str, Sequence[str]] = {
    "genre": (
        *("rock", "pop", "alternative", "indie", "electronic", "dance", "alternative rock", "jazz", "metal"),
        *("classic rock", "soul", "indie rock", "electronica", "folk", "punk", "blues", "hard rock", "ambient"),
        *("Hip-Hop", "country", "easy listening", "funk", "electro", "heavy metal", "Progressive rock", "rnb"),
        *("indie pop", "House", "classical", "techno", "indian", "opera", "classic", "new age"),
    ),
    "mood": (
        *("beautiful", "chillout", "Mellow", "chill", "party", "sexy", "catchy", "sad", "happy", "slow", "fast"),
        *("loud", "quiet", "soft", "weird"),
    ),
    "instrument": (
        *("acoustic", "guitar", "strings", "drums", "piano", "violin", "synth", "harpsichord", "flute", "sitar"),
        *("harp", "cello", "beat", "beats"),
    ),
    "voice": (
        *("female vocalists", "male vocalists", "female vocalist", "instrumental", "vocal", "female", "male"),
        *("singing", "vocals", "no vocals", "woman", "male vocal", "no vocal", "man", "choir", "voice"),
        *("male voice", "female vocal", "no voice", "female voice", "choral"),
    ),
}
"""What the tags of both networks describe; the others are of the kind other."""

_PARENTS = {
    **dict.fromkeys(
        ("alternative", "alternative rock", "classic rock", "hard rock", "indie rock", "Progressive rock", "punk"),
        "rock",
    ),
    **dict.fromkeys(("dance", "electro", "electronica", "House", "techno"), "electronic"),
    **dict.fromkeys(("classic", "opera"), "classical"),
    "heavy metal": "metal",
    "indie pop": "pop",
    "rnb": "soul",
}
"""The coarser genre of some tags, where it is a tag of the same network."""


def find_package(folder: Path | None) -> Path:
    """Return the folder with the files of the package.

    Args:
        folder: Where it is installed, or the package itself; None for the Python that runs this.

    Raises:
        NetworkImportError: If it is not there.
    """
    if folder is None:
        spec = importlib.util.find_spec("musicnn")
        candidates = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    else:
        candidates = [folder, folder / "musicnn"]
    for candidate in candidates:
        if (candidate / "configuration.py").is_file():
            return candidate
    where = f"not in {folder}" if folder else "not installed"
    raise NetworkImportError(
        f"the package musicnn is {where}: {_INSTALL}, or add --target FOLDER and pass the folder with --package"
    )


def read_weights(package: Path, variant: Variant) -> PublishedWeights:
    """Read the weights and labels of a network of the package.

    Raises:
        DataError: If the checkpoint is missing or damaged.
        NetworkImportError: If the package is of another version.
    """
    published = _PUBLISHED[variant]
    index, data = checkpoint_files(package, variant)
    # What the optimiser kept is not needed: its variables are named after the weights, with a suffix.
    arrays = read_checkpoint(index, data, lambda name: "Adam" not in name and not name.endswith("_power"))
    source = ast.parse((package / "configuration.py").read_text())
    for statement in source.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == published.labels:
            return PublishedWeights(arrays, tuple(ast.literal_eval(statement.value)))
    raise NetworkImportError(f"{package} has no labels {published.labels}; install version {VERSION}: {_INSTALL}")


def checkpoint_files(package: Path, variant: Variant) -> tuple[Path, Path]:
    """Return the paths of index and values of a checkpoint."""
    folder = package / _PUBLISHED[variant].folder
    return folder / ".index", folder / ".data-00000-of-00001"


def origin_of(package: Path, variant: Variant) -> dict[str, Any]:
    """Return where the weights came from."""
    _, data = checkpoint_files(package, variant)
    return {
        "source": SOURCE,
        "file": f"musicnn/{data.parent.name}/{data.name}",
        "file_sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
    }


def musicnn_draft(variant: Variant, tags: Sequence[str]) -> Draft:
    """Return the card of a network of the package."""
    published = _PUBLISHED[variant]
    kinds = {tag: kind for kind, of_kind in _KINDS.items() for tag in of_kind}
    labels = [{"name": tag, "kind": kinds.get(tag, "other")} for tag in tags]
    genres = [tag for tag in tags if kinds.get(tag) == "genre"]
    parents = {tag: _PARENTS[tag] for tag in genres if _PARENTS.get(tag) in genres}
    coarse = {
        genre: [genre, *(tag for tag in genres if parents.get(tag) == genre)]
        for genre in genres
        if genre not in parents
    }
    return draft_of(
        {
            "name": f"musicnn-{variant}",
            "version": VERSION,
            "summary": f"musicnn (Pons and Serra 2019), a tagger trained on the {published.data}; its genres are tags",
            "trained_on": {"data": published.data},
            "parents": parents,
            "taxonomies": {
                "coarse": {
                    "summary": "The genres among the tags, each with its kinds.",
                    "genres": coarse,
                }
            },
            "audio": {"sample_rate": _SAMPLE_RATE},
            "windows": {"window_s": _SECONDS, "hop_s": _SECONDS, "last_window": "align_to_end"},
            "inputs": [
                {"name": _INPUT, "frames": musicnn.FRAMES, "features": front_ends.MUSICNN.document()},
            ],
            "outputs": {
                "tags": {"name": _TAGS, "yields": "logits", "labels": labels},
                "embedding": {"name": _EMBEDDING, "length": _EMBEDDING_LENGTH},
            },
        },
        where="the card of musicnn",
    )


def musicnn_network(weights: PublishedWeights) -> Network:
    """Return a network of the package as ONNX."""
    try:
        network = musicnn.Musicnn(weights).eval()
    except (KeyError, RuntimeError, ValueError) as error:
        raise NetworkImportError(f"the checkpoint does not contain the weights of musicnn: {error}") from error
    inputs = {_INPUT: (musicnn.FRAMES, front_ends.MUSICNN.n_mels)}
    content = export_onnx_graph(network, inputs=inputs, outputs=[_TAGS, _EMBEDDING])

    def reference(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return [np.asarray(output.numpy()) for output in network(*map(torch.from_numpy, arrays))]

    model = onnx.load_model_from_string(content)
    return Network(model, "a TensorFlow checkpoint", (Layout.FRAMES_MELS,), reference)
