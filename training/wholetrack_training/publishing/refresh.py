"""Refreshing the figures and the text of a published bundle from records; its network stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wholetrack.contracts import ModelCard
from wholetrack.inference.bundle import CARD_FILE, load_bundle
from wholetrack_training.errors import PublishingError
from wholetrack_training.files import write_json
from wholetrack_training.publishing.figures import summary_of, with_figures
from wholetrack_training.publishing.model_card import CARD_TEXT_FILE, card_text
from wholetrack_training.results.records import Record
from wholetrack_training.systems.recipe import Recipe
from wholetrack_training.systems.registry import SYSTEMS


def refresh_card(folder: Path, records: Sequence[Record]) -> ModelCard:
    """Rewrite ``model.json`` and ``CARD.md`` of a bundle with the figures of these runs.

    Args:
        folder: Folder of the bundle.
        records: Runs of the bundle's recipe.

    Returns:
        The new contract.

    Raises:
        PublishingError: If there are no records, or they belong to another recipe.
        StartupError: If the folder does not hold a bundle.
    """
    card = load_bundle(folder).card
    recipe = _recipe_of(records)
    sizes = {(record.parameters, record.labels) for record in records}
    if (
        recipe is None
        or (recipe.audio, recipe.features, recipe.windows)
        != (card.audio, card.single_input.features, card.windows_of(card.single_input))
        or sizes != {(card.metrics["parameters"], card.labels)}
    ):
        raise PublishingError(f"the records do not belong to the recipe of {folder}")
    card = with_figures(card, records, recipe).model_copy(update={"summary": summary_of(recipe, len(card.labels))})
    (folder / CARD_TEXT_FILE).write_text(card_text(card, records))
    write_json(folder / CARD_FILE, card.document())
    return load_bundle(folder).card


def _recipe_of(records: Sequence[Record]) -> Recipe | None:
    """Return the recipe that all records share; None without records, or if they are not of a system.

    Raises:
        PublishingError: If the recipes differ.
    """
    recipes = [SYSTEMS[record.system].from_dict(record.recipe) for record in records if record.system in SYSTEMS]
    if any(recipe != recipes[0] for recipe in recipes):
        raise PublishingError("the figures of a card must come from runs of one recipe")
    return recipes[0] if len(recipes) == len(records) and recipes else None
