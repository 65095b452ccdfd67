"""Benchmarks. Each is a command, ``python -m bench.NAME``, that prints one JSON object.

``bench.performance``, ``bench.reliability``, ``bench.containers.page`` and ``bench.readme_table`` generate
documentation from the recorded results. With ``--check`` they report whether it is up to date.
"""

import wholetrack  # noqa: F401 - imported before onnxruntime, because it disables onnxruntime's telemetry
