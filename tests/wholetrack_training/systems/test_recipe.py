"""Recipes can be written, read, changed by dotted name, and read under the field names of earlier versions."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.errors import RecipeError
from wholetrack_training.systems.names import NAMES
from wholetrack_training.systems.recipe import Source
from wholetrack_training.systems.registry import SYSTEMS, system_named

pytestmark = pytest.mark.torch

FULL = SYSTEMS["wholetrack-crnn"].of(Source.PRECOMPUTED)


def test_the_names_of_the_systems_are_complete_and_in_order() -> None:
    assert tuple(SYSTEMS) == NAMES
    with pytest.raises(RecipeError, match="there is no system nobody; choose one of wholetrack-crnn, hilsdorf-crnn"):
        system_named("nobody")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", list(Source))
def test_a_recipe_is_read_as_it_was_written(name: str, source: Source) -> None:
    recipe = SYSTEMS[name].of(source)
    assert type(recipe).from_dict(recipe.as_dict()) == recipe


def test_a_recipe_with_former_field_names_is_read() -> None:
    document = FULL.as_dict()
    former: dict[str, Any] = {
        name: dict(value) if isinstance(value, dict) else value for name, value in document.items()
    }
    former["shape"]["deaf_bands"] = former["shape"].pop("masked_top_bands")
    former["augmentation"]["damage"] = former["augmentation"].pop("degradation")
    former["schedule"]["taught"] = former["schedule"].pop("distillation")
    assert type(FULL).from_dict(former) == FULL
    assert "deaf_bands" in former["shape"]


def test_fields_that_an_earlier_version_did_not_have_get_their_default() -> None:
    document = FULL.as_dict()
    del document["outliers"], document["speech"]
    assert type(FULL).from_dict(document) == FULL.changed({"outliers": 0, "speech": False})


def test_a_former_field_name_can_still_be_set_and_is_deprecated(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        changed = FULL.changed({"shape.deaf_bands": 0})
    assert changed == FULL.changed({"shape.masked_top_bands": 0})
    assert caplog.messages == [
        "The recipe field shape.deaf_bands is deprecated: use shape.masked_top_bands instead",
    ]


def test_impossible_changes_are_refused() -> None:
    for name in ("schedule.epoch", "epochs", "schedule.epochs.more"):
        with pytest.raises(RecipeError, match=f"the recipe of wholetrack-crnn has no field {name}"):
            FULL.changed({name: 1})
    with pytest.raises(RecipeError, match="the recipe of wholetrack-crnn is invalid: schedule.epochs: .* integer"):
        FULL.changed({"schedule.epochs": "many"})
