"""Trains, evaluates and publishes wholetrack's models, from a folder of music to a bundle."""

import wholetrack  # noqa: F401 - imported before onnxruntime, because it disables onnxruntime's telemetry

__version__ = "0.2.0"
