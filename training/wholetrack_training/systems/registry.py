"""Every system's recipe by name."""

from __future__ import annotations

from wholetrack_training.errors import RecipeError
from wholetrack_training.systems.campana_crnn import CampanaCrnn
from wholetrack_training.systems.deepsound_crnn import DeepsoundCrnn
from wholetrack_training.systems.guimaraes_cnn import GuimaraesCnn
from wholetrack_training.systems.hilsdorf_crnn import HilsdorfCrnn
from wholetrack_training.systems.recipe import Recipe
from wholetrack_training.systems.shared_trunk_crnn import SharedTrunkRecipe
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

SYSTEMS: dict[str, type[Recipe]] = {
    system.system: system
    for system in (WholetrackCrnn, HilsdorfCrnn, CampanaCrnn, GuimaraesCnn, DeepsoundCrnn, SharedTrunkRecipe)
}
"""The recipe class of every system, by the name under which its model is served."""


def system_named(name: str) -> type[Recipe]:
    """Return the recipe class of a system.

    Raises:
        RecipeError: If there is no such system.
    """
    if name not in SYSTEMS:
        raise RecipeError(f"there is no system {name}; choose one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
