"""Rules about the source that no linter checks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.paths import PROJECT

_MAX_LINES = 400
_SOURCES = sorted(
    path
    for folder in ("service", "training", "bench", "tests", "docker", "docs", "requirements")
    for path in (PROJECT / folder).rglob("*.py")
)
_PACKAGES = [path for path in _SOURCES if path.is_relative_to(PROJECT / "service") or "training" in path.parts]


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", _SOURCES, ids=_name)
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= _MAX_LINES


@pytest.mark.parametrize("path", _PACKAGES, ids=_name)
def test_every_public_name_is_documented(path: Path) -> None:
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module), "the module has no docstring"
    assert list(_undocumented(module, "")) == []


def _undocumented(parent: ast.AST, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _undocumented(node, f"{prefix}{node.name}.")
