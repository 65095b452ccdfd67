"""Trains, evaluates and publishes the models of wholetrack, from a folder of music to a bundle."""

import wholetrack  # noqa: F401 - imported before onnxruntime, because it disables the telemetry of onnxruntime

__version__ = "0.2.0"
