"""From a folder of music to a published model: data, systems, fitting, export, results, publishing."""

import wholetrack  # noqa: F401 - before onnxruntime: it switches the telemetry of onnxruntime off

__version__ = "0.2.0"
