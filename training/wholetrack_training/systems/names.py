"""Names of the systems, for code that must not import PyTorch."""

from __future__ import annotations

DEFAULT = "wholetrack-crnn"
"""Our own system."""

NAMES = (DEFAULT, "hilsdorf-crnn", "campana-crnn", "guimaraes-cnn", "deepsound-crnn", "shared-trunk-crnn")
"""All systems, in the order of :data:`wholetrack_training.systems.registry.SYSTEMS`."""
