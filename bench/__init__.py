"""Benchmarks: each a command, ``python -m bench.NAME``, that prints one JSON object."""

import wholetrack  # noqa: F401 - before onnxruntime, which it keeps from reporting
