"""Benchmarks: each a command, ``python -m bench.NAME``, that prints one JSON object."""
