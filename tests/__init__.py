"""Tests. The folders mirror the packages; ``e2e`` tests a running service."""

import wholetrack  # noqa: F401 - imported before onnxruntime, because it disables onnxruntime's telemetry
