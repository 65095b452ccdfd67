"""The four published systems and our own: each a file with its network, features, augmentation and optimiser."""

from __future__ import annotations

from wholetrack_training.systems.campana_crnn import CampanaCrnn
from wholetrack_training.systems.deepsound_crnn import DeepsoundCrnn
from wholetrack_training.systems.guimaraes_cnn import GuimaraesCnn
from wholetrack_training.systems.hilsdorf_crnn import HilsdorfCrnn
from wholetrack_training.systems.recipe import Recipe
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

SYSTEMS: dict[str, type[Recipe]] = {
    system.system: system for system in (WholetrackCrnn, HilsdorfCrnn, CampanaCrnn, GuimaraesCnn, DeepsoundCrnn)
}
"""Every system's recipe by the name under which its model is served."""
