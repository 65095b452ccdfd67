"""The card of a bundle as far as its author has to write it: ``model.json`` without what the import determines."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from wholetrack.contracts import FeatureSpec, ModelCard, OutputsSpec
from wholetrack.features.inputs import InputFeatures
from wholetrack_training.errors import NetworkImportError

SCORES_FROM_TAGS = "genre_logits"
"""Name of the output that the import adds to a network that has tags only."""

_DETERMINED = ("licence", "metrics", "sha256", "golden", "int8", "opset")
_GUIDE = "docs/model-bundle.md describes all fields"


@dataclass(frozen=True, slots=True)
class Draft:
    """A card whose hashes, licence and figures are not known yet.

    Attributes:
        card: The card, with placeholders.
        genre_tags: If the network has tags only, the position of each label among the tags; otherwise None.
    """

    card: ModelCard
    genre_tags: tuple[int, ...] | None

    @property
    def network_outputs(self) -> tuple[str, ...]:
        """The outputs that the network itself has, in the order of scores, tags, embedding."""
        return self.card.outputs.names if self.genre_tags is None else self.card.outputs.names[1:]


def read_draft(path: Path) -> Draft:
    """Read a card from a JSON file.

    Raises:
        NetworkImportError: If the card is invalid, or the service cannot compute its features.
    """
    try:
        document = from_json(path.read_bytes())
    except ValueError as error:
        raise NetworkImportError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise NetworkImportError(f"{path} does not contain a card: {_GUIDE}")
    return draft_of(document, where=str(path))


def draft_of(document: Mapping[str, Any], *, where: str) -> Draft:
    """Complete a card with placeholders, and check it.

    Args:
        document: Contents of ``model.json`` without the fields that the import determines. If ``outputs`` has tags and
            no scores, the labels are the tags of the kind genre, or those of them that ``labels`` lists.
        where: Name of the card in messages.

    Raises:
        NetworkImportError: If the card is invalid, or the service cannot compute its features.
    """
    if given := [name for name in _DETERMINED if name in document]:
        raise NetworkImportError(f"{where}: remove {' and '.join(given)}, which the import writes itself")
    complete: dict[str, Any] = {
        "schema_version": 2,
        "trained_on": {},
        **deepcopy(dict(document)),
        "licence": "",
        "metrics": {},
        "sha256": "",
        "golden": {"sha256": "", "tolerance": 1.0},
        "opset": 0,
    }
    outputs: Any = complete.get("outputs")
    from_tags = isinstance(outputs, dict) and "tags" in outputs and "scores" not in outputs
    if from_tags:
        complete["outputs"] = {**outputs, "scores": {"name": SCORES_FROM_TAGS, "yields": "logits"}}
        complete.setdefault("labels", _genres(outputs["tags"]))
    _add_shapes(complete.get("inputs"))
    try:
        card = ModelCard.model_validate(complete)
    except ValidationError as error:
        problems = "; ".join(f"{_place(e)}: {_message(e)}" for e in error.errors())
        raise NetworkImportError(f"{where} is invalid: {problems}; {_GUIDE}") from error
    try:
        InputFeatures(card)
    except ValueError as error:
        raise NetworkImportError(f"{where}: the service cannot compute these features: {error}") from error
    return Draft(card, _positions(card, where) if from_tags else None)


def _genres(tags: Any) -> list[str]:  # noqa: ANN401 - not validated yet
    """Return the tags of the kind genre, as far as the card is valid."""
    entries = tags.get("labels") if isinstance(tags, dict) else None
    return [
        entry["name"]
        for entry in (entries if isinstance(entries, list | tuple) else [])
        if isinstance(entry, dict) and entry.get("kind") == "genre" and "name" in entry
    ]


def _positions(card: ModelCard, where: str) -> tuple[int, ...]:
    assert card.outputs.tags
    names = card.outputs.tags.names
    if missing := [label for label in card.labels if label not in names]:
        raise NetworkImportError(
            f"{where}: the network has tags and no scores, so that every label must be one of the tags; {missing} are "
            "not: remove them, or describe the output with the scores"
        )
    return tuple(map(names.index, card.labels))


def _add_shapes(inputs: Any) -> None:  # noqa: ANN401 - not validated yet
    """Add the shape of each input, which follows from its frames and features."""
    for entry in inputs if isinstance(inputs, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("features"), dict):
            entry.setdefault("shape", ["N", entry.get("frames"), entry["features"].get("n_mels")])


def _place(error: ErrorDetails) -> str:
    return ".".join(map(str, error["loc"])) or "card"


def _message(error: ErrorDetails) -> str:
    place = error["loc"]
    if error["type"] == "extra_forbidden" and place[0] == "outputs" and len(place) == 2:
        return (
            f"the service does not know this output; it knows {', '.join(OutputsSpec.model_fields)}: remove it, also "
            "from the network"
        )
    if error["type"] == "extra_forbidden" and "features" in place[:-1]:
        return (
            "the service's front end has no such option, so that it cannot compute what this network needs if it needs "
            f"it; the options are {', '.join(FeatureSpec.model_fields)}"
        )
    return error["msg"]
