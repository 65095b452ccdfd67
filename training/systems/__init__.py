"""The four published systems and our own: each a file with its network, features, augmentation and optimiser."""

from __future__ import annotations

from training.recipe import Recipe
from training.systems.campana_crnn import CampanaCrnn
from training.systems.deepsound_crnn import DeepsoundCrnn
from training.systems.guimaraes_cnn import GuimaraesCnn
from training.systems.hilsdorf_crnn import HilsdorfCrnn
from training.systems.wholetrack_crnn import WholetrackCrnn

SYSTEMS: dict[str, type[Recipe]] = {
    system.system: system for system in (WholetrackCrnn, HilsdorfCrnn, CampanaCrnn, GuimaraesCnn, DeepsoundCrnn)
}
"""Every system's recipe by the name under which its model is served."""
