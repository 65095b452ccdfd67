"""Tests. The folders mirror the packages; ``e2e`` tests a running service."""

import wholetrack  # noqa: F401 - before onnxruntime, because it disables its telemetry
