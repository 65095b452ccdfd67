"""Outputs of judged networks on disk: ``docs/judged/<label>.npz``, and the figures ``docs/judged/<label>.json``.

The ``.npz`` file holds for each set:

<set>.names, <set>.groups  text ``[n_recordings]``
<set>.folds                uint8 ``[n_recordings]``
<set>.agreed               bool ``[n_recordings]``
<set>.windows              uint16 ``[n_recordings]``, number of windows with sound
<set>.logs                 float16 ``[n_windows_of_all, n_labels]``, logarithm of the probability of each label
<set>.tags                 float16 ``[n_recordings, n_tags]``
<set>.window_tags          float16 ``[n_windows_of_all, n_window_tags]``, logits

The figures follow from these arrays, so that they can be corrected without classifying any recording again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.errors import DataError
from wholetrack_training.files import write_json, write_npz
from wholetrack_training.results.judging import ClassifiedSet


@dataclass(frozen=True, slots=True)
class Judged:
    """The outputs of the networks of one model for all sets.

    Attributes:
        label: Label of the record.
        date: When the recordings were classified, ISO 8601.
        labels: Genres in the order of the columns.
        tags: Tags in the order of the columns.
        window_tags: The tags that are kept for each window, in the order of the columns.
        sets: Outputs by name of the set.
        least_peak: The published threshold for ``in_domain``, for a model that goes by its largest probabilities.
    """

    label: str
    date: str
    labels: tuple[str, ...]
    tags: tuple[str, ...]
    window_tags: tuple[str, ...]
    sets: Mapping[str, ClassifiedSet]
    least_peak: float | None


def write_judged(judged: Judged, figures: Mapping[str, Any], folder: Path) -> Path:
    """Write the outputs and the figures, and return the path of the JSON file."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, found in judged.sets.items():
        arrays |= {
            f"{name}.names": np.array(found.names),
            f"{name}.groups": np.array(found.groups),
            f"{name}.folds": found.folds.astype(np.uint8),
            f"{name}.agreed": found.agreed,
            f"{name}.windows": found.n_windows.astype(np.uint16),
            f"{name}.logs": found.logs.astype(np.float16),
            f"{name}.tags": found.tags.astype(np.float16),
            f"{name}.window_tags": found.window_tags.astype(np.float16),
        }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{judged.label}.json"
    # The JSON file is written last, because readers look for it.
    write_npz(path.with_suffix(".npz"), arrays)
    document = {
        "label": judged.label,
        "date": judged.date,
        "labels": judged.labels,
        "tags": judged.tags,
        "window_tags": judged.window_tags,
        "least_peak": judged.least_peak,
        "recordings": {name: len(found) for name, found in judged.sets.items()},
        "figures": figures,
    }
    write_json(path, document)
    return path


def read_judged(path: Path) -> Judged:
    """Read the outputs of a model.

    Args:
        path: The JSON file.

    Raises:
        DataError: If a file is missing or damaged.
    """
    try:
        document = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            sets = {name: _read_set(arrays, name) for name in document["recordings"]}
        return Judged(
            document["label"],
            document["date"],
            labels=tuple(document["labels"]),
            tags=tuple(document["tags"]),
            window_tags=tuple(document["window_tags"]),
            sets=sets,
            least_peak=document["least_peak"],
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a record of judged networks: {error}") from error


def _read_set(arrays: Mapping[str, NDArray[Any]], name: str) -> ClassifiedSet:
    return ClassifiedSet(
        names=tuple(arrays[f"{name}.names"].tolist()),
        groups=tuple(arrays[f"{name}.groups"].tolist()),
        folds=arrays[f"{name}.folds"].astype(np.int_),
        agreed=arrays[f"{name}.agreed"],
        n_windows=arrays[f"{name}.windows"].astype(np.int_),
        logs=arrays[f"{name}.logs"].astype(np.float32),
        tags=arrays[f"{name}.tags"].astype(np.float32),
        window_tags=arrays[f"{name}.window_tags"].astype(np.float32),
    )
