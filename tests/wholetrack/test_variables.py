"""The variables that other programs use are known to the service, so that it ignores them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.harness.paths import PROJECT
from wholetrack.deprecated_settings import RENAMED
from wholetrack.settings import PREFIX, Settings
from wholetrack.variables import COMPOSE_VARIABLES, check_names

# Files that set or read variables. Tests may name variables that are wrong on purpose.
_FILES = (
    *("docker-compose.yml", "Dockerfile", "Makefile", "README.md", ".ci/*", "docker/*.yml", "docker/*.cfg"),
    *("examples/*", "deploy/**/*.yaml", "deploy/**/*.md", "docs/*.md", "tests/conftest.py", "tests/harness/*.py"),
    "bench/**/*.py",
)
_VARIABLE = re.compile(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b")


def test_the_variables_of_compose_are_those_of_the_example() -> None:
    generator = runpy.run_path(str(PROJECT / "docker/env_example.py"))
    assert {f"{PREFIX}{name.upper()}" for name in COMPOSE_VARIABLES} == {name for name, _, _ in generator["COMPOSE"]}


def _files_with_variables() -> list[Path]:
    found = [path for pattern in _FILES for path in sorted(PROJECT.glob(pattern)) if path.is_file()]
    return [path for path in found if _VARIABLE.search(path.read_text())]


@pytest.mark.parametrize("path", _files_with_variables(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_variable_in_the_repository_is_known(path: Path) -> None:
    variables = dict.fromkeys((name.lower() for name in _VARIABLE.findall(path.read_text())), "1")
    check_names(PREFIX, variables, {*Settings.model_fields, *RENAMED})
