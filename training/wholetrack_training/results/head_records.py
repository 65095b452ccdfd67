"""Records of heads, ``docs/heads/<label>.json``, and the part of ``docs/RESULTS.md`` about them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wholetrack.contracts import HeadInput, ModelCard
from wholetrack_training.errors import DataError
from wholetrack_training.files import write_json
from wholetrack_training.results.head_figures import HeadFigures
from wholetrack_training.results.markdown import markdown_table

HeadRecord = Mapping[str, Any]
"""Contents of a record."""

_FIELDS = {"command", "date", "base", "inputs", "recordings", "protocol", "mean_recall", "mean_recall_interval"}
_FIELDS |= {"accuracy", "top3", "recall", "calibration"}
_INTRODUCTION = """\
`wholetrack-train head` fits a linear classifier of other genres to the outputs of a published network. These heads were
fitted to the recordings beyond GTZAN that are judged above, in all of their groups, from a folder with a folder of
links per group. They are not published. Every recording is predicted by a head that was not fitted to it, and whose
penalty was chosen without it. Brackets contain 95 % intervals: Wilson's for shares, and for the mean recall that of
resampled recordings of each group. It was decided on these recordings that heads use the tags besides the embedding,
and that five folds choose the penalty, so the figures may be slightly too high."""


def write_head_record(
    path: Path, figures: HeadFigures, *, command: str, base: ModelCard, inputs: Mapping[HeadInput, int]
) -> None:
    """Write the record of a head; folders that are missing are created.

    Args:
        path: The JSON file.
        figures: The figures of the head.
        command: The command that evaluated it.
        base: Contract of the model whose network it uses.
        inputs: Length of each output of the network that it uses.
    """
    found = {name: value for name, value in figures.as_dict().items() if name != "confusion"}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "command": command,
            "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
            "base": {"name": base.name, "version": base.version, "sha256": base.sha256},
            "inputs": dict(inputs),
            **found,
        },
    )


def read_head_records(folder: Path) -> dict[str, HeadRecord]:
    """Return the records of heads by label; none if there is no such folder.

    Raises:
        DataError: If a record is damaged.
    """
    return {path.stem: _read_record(path) for path in sorted(folder.glob("*.json"))}


def _read_record(path: Path) -> HeadRecord:
    try:
        document = json.loads(path.read_text())
        missing = _FIELDS - document.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a record of a head: {error}") from error
    if missing:
        raise DataError(f"{path} is not a record of a head: it has no {', '.join(sorted(missing))}")
    return dict(document)


def heads_section(records: Mapping[str, HeadRecord]) -> list[str]:
    """Return the section on heads; nothing if there are no records.

    Args:
        records: The records by label.
    """
    if not records:
        return []
    found = list(records.values())
    commands = [f"{record['command']}  # {record['date']}" for record in found]
    rows = [
        ("base", *(f"{record['base']['name']} {record['base']['version']}" for record in found)),
        ("inputs", *(_listed(record["inputs"]) for record in found)),
        ("recordings", *(f"{record['recordings']}, {len(record['recall'])} groups" for record in found)),
        ("mean recall", *(_cell(record["mean_recall"], record["mean_recall_interval"]) for record in found)),
        ("accuracy", *(_share(record["accuracy"]) for record in found)),
        ("group among the first three", *(_share(record["top3"]) for record in found)),
        ("guessing", *(f"{1 / len(record['recall']):.3f}" for record in found)),
        ("calibration error of the share", *(f"{record['calibration']['ece_before']:.3f}" for record in found)),
        ("calibration error of the confidence", *(f"{record['calibration']['ece_after']:.3f}" for record in found)),
    ]
    genres = list(dict.fromkeys(genre for record in found for genre in record["recall"]))
    recall = [
        (genre, *(_share(record["recall"][genre]) if genre in record["recall"] else "" for record in found))
        for genre in genres
    ]
    protocols = [record["protocol"] for record in found]
    return [
        "## Heads",
        "",
        *_INTRODUCTION.splitlines(),
        "",
        "```sh",
        *commands,
        "```",
        "",
        *markdown_table(("", *protocols), rows),
        "",
        *markdown_table(("recall of", *protocols), recall),
        "",
    ]


def _listed(inputs: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({length})" for name, length in inputs.items())


def _share(share: Mapping[str, Any]) -> str:
    return f"{_cell(share['value'], share['interval'])}, n = {share['n']}"


def _cell(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
