"""Imported bundles are neither committed nor part of an image."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.harness.paths import PROJECT
from wholetrack_training.cli.import_commands import OWN_MODELS


def pattern(line: str) -> re.Pattern[str]:
    """Return a line of ``.dockerignore`` as a regular expression for paths, which also matches what is below it."""
    translated = re.escape(line).replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.compile(translated + "(/.*)?")


def in_build_context(path: str) -> bool:
    lines = [line for line in (PROJECT / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    included = True
    for line in lines:
        if pattern(line.removeprefix("!")).fullmatch(path):
            included = line.startswith("!")
    return included


def test_the_default_folder_is_ignored_by_git_and_docker() -> None:
    assert f"/{OWN_MODELS}/" in (PROJECT / ".gitignore").read_text().split("\n")
    assert not in_build_context(f"{OWN_MODELS}/musicnn-msd/0.1.0/model.onnx")
    assert in_build_context("models/wholetrack-crnn/2/model.onnx")


def test_images_contain_no_other_bundles_than_those_of_the_project() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+)", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert [path for path in copied if "models" in path] == [
        "models/wholetrack-crnn",
        "models/wholetrack-crnn-gtzan",
        "models",
    ]


def test_no_bundle_of_the_project_is_imported() -> None:
    cards = [path for folder in ("models", "tests/folds") for path in (PROJECT / folder).glob("*/*/model.json")]
    assert len(cards) >= 8
    for path in cards:
        assert "imported" not in json.loads(Path(path).read_text())["trained_on"], path
