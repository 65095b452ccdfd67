"""The files that the Dockerfile copies, checked without a Docker engine."""

from __future__ import annotations

import fnmatch
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.paths import PROJECT

_DOCKERFILE = (PROJECT / "Dockerfile").read_text()
_BUILD_CONTEXT = [line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")]


def copied(stage: str) -> Iterator[tuple[str, str]]:
    """Yield the sources and targets of the COPY instructions of a stage that read the build context."""
    (body,) = re.findall(rf"^FROM \S+ AS {stage}\n(.*?)(?=^FROM |\Z)", _DOCKERFILE, re.MULTILINE | re.DOTALL)
    for arguments in re.findall(r"^COPY (?!--from)(.+)$", body, re.MULTILINE):
        *sources, target = arguments.split()
        yield from ((source, target) for source in sources)


@pytest.mark.parametrize("stage", re.findall(r"^FROM \S+ AS (\S+)$", _DOCKERFILE, re.MULTILINE), ids="stage-{}".format)
def test_copied_files_exist_and_are_in_the_build_context(stage: str) -> None:
    for source, _ in copied(stage):
        path = PROJECT / source
        assert path.exists(), source
        name = f"{source}/**" if path.is_dir() else source
        parent = f"{source.partition('/')[0]}/**"
        assert parent in _BUILD_CONTEXT or any(fnmatch.fnmatch(name, pattern) for pattern in _BUILD_CONTEXT), source


def test_the_ffmpeg_options_need_only_the_files_that_their_stage_copies(tmp_path: Path) -> None:
    """The stage runs before any package is installed, and every file it copies can cause ffmpeg to be rebuilt."""
    for source, target in copied("ffmpeg-options"):
        folder = tmp_path / target
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / source, folder)
    without_packages = [sys.executable, "-S", "ffmpeg_options.py"]
    environment = os.environ | {"PYTHONPATH": "."}
    done = subprocess.run(without_packages, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    options = runpy.run_path(str(PROJECT / "docker/ffmpeg_options.py"))["options"]
    assert done.stdout.splitlines() == options(), done.stderr
