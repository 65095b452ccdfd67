"""Checking whether optional packages are installed."""

from __future__ import annotations

from importlib.util import find_spec


def missing_packages(*names: str) -> list[str]:
    """Return the names of the top-level packages that are not installed, without importing any."""
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    spec = find_spec(name)
    # Uninstalling may leave an empty folder behind, which Python would import as a namespace package: onnxruntime and
    # onnxruntime-gpu share theirs.
    return spec is not None and spec.origin is not None
