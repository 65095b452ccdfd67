"""Shared infrastructure of tests and benchmarks: a served process, generated recordings, Compose projects, reports."""
