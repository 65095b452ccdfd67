"""Records on disk: ``docs/results/<label>/<protocol>-<part>.json`` and an ``.npz`` of the same name next to it.

The JSON file holds what people may want to read. The ``.npz`` file holds the confusion matrix, and one value per track
or per epoch:

confusion       int32 ``[n_labels, n_labels]``, number of tracks by true and predicted genre
truth           uint16 ``[n_tracks]``, true genre
shares          uint16 ``[n_tracks, n_labels]``, share of each genre in the summed score, in ten-thousandths
peaks           uint16 ``[n_tracks]``, mean highest probability of the windows, in ten-thousandths
history_<name>  float64 ``[n_epochs]``, loss or validation figure by epoch
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wholetrack_training.data.splits import Protocol
from wholetrack_training.errors import DataError
from wholetrack_training.files import write_json, write_npz
from wholetrack_training.fitting.evaluation import Evaluation
from wholetrack_training.results.records import Record, Training
from wholetrack_training.systems.registry import SYSTEMS

_PER_TRACK = ("confusion", "truth", "shares", "peaks")
_HISTORY = "history_"
# Shares and peaks are evaluated to four decimals.
_SCALE = 10_000


def write_record(record: Record, folder: Path) -> Path:
    """Write a record into ``folder``, which is created if missing, and return the path of its JSON file."""
    document = asdict(record)
    figures, history = document["figures"], document["training"].pop("history")
    arrays: dict[str, NDArray[Any]] = {
        "confusion": np.array(figures["confusion"], dtype=np.int32),
        "truth": np.array(figures["truth"], dtype=np.uint16),
        "shares": _ten_thousandths(figures["shares"]),
        "peaks": _ten_thousandths(figures["peaks"]),
        **{f"{_HISTORY}{name}": np.array(values, dtype=np.float64) for name, values in history.items()},
    }
    document["figures"] = {name: value for name, value in figures.items() if name not in _PER_TRACK}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.protocol}-{record.part}.json"
    # The JSON file is written last, because readers look for it.
    write_npz(path.with_suffix(".npz"), arrays)
    write_json(path, document)
    return path


def read_records(folder: Path) -> list[Record]:
    """Return all records of a folder, by protocol and part.

    Recipes are brought up to date: renamed fields get their current name, and fields that did not exist yet when the
    run was recorded get their default.

    Raises:
        DataError: If a record is damaged, or its ``.npz`` file is missing.
    """
    return sorted(map(_read, folder.glob("*.json")), key=lambda record: (record.protocol, record.part))


def _read(path: Path) -> Record:
    try:
        document = json.loads(path.read_text())
        with path.with_suffix(".npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            document["figures"] = Evaluation(**document["figures"], **_per_track(arrays))
            history = {
                name.removeprefix(_HISTORY): tuple(arrays[name].tolist())
                for name in arrays
                if name.startswith(_HISTORY)
            }
        document["training"] = Training(**document["training"], history=history)
        document["protocol"], document["labels"] = Protocol(document["protocol"]), tuple(document["labels"])
        if system := SYSTEMS.get(document["system"]):
            document["recipe"] = system.from_dict(document["recipe"]).as_dict()
        return Record(**document)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"the record {path} cannot be read: {error}") from error


def _per_track(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {
        "confusion": tuple(map(tuple, arrays["confusion"].tolist())),
        "truth": tuple(arrays["truth"].tolist()),
        "shares": tuple(map(tuple, (arrays["shares"] / _SCALE).tolist())),
        "peaks": tuple((arrays["peaks"] / _SCALE).tolist()),
    }


def _ten_thousandths(values: ArrayLike) -> NDArray[np.uint16]:
    return np.rint(np.array(values, dtype=np.float64) * _SCALE).astype(np.uint16)
