"""The command ``wholetrack-train``."""

from wholetrack_training.cli.app import app, main

__all__ = ["app", "main"]
