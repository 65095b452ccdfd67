"""The tests: a tree like the project's, and ``e2e`` for the whole way through a real server."""

import wholetrack  # noqa: F401 - before onnxruntime, which it keeps from reporting
