"""Fixtures shared by all tests, and the markers that skip what a machine cannot run."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.browser.chromium import find_chromium
from tests.harness.paths import PROJECT, SHARED
from tests.harness.recordings import Recorder, generate_tune
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg, find_ffmpeg
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

_HAS_GPU = Path("/dev/nvidiactl").exists() and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
# For each marker, whether its requirement is met, and the reason to skip otherwise.
_REQUIREMENTS = {
    "data": ((SHARED / "data").is_dir(), f"the real recordings are missing: {SHARED / 'data'} does not exist"),
    "torch": (importlib.util.find_spec("torch") is not None, "PyTorch is not installed: pip install -e '.[train]'"),
    "musicnn_package": (
        importlib.util.find_spec("musicnn") is not None,
        "musicnn is missing: pip install --no-deps musicnn",
    ),
    "keras": (importlib.util.find_spec("keras") is not None, "Keras is not installed: pip install keras"),
    "curl": (shutil.which("curl") is not None, "curl is not installed"),
    "espeak": (shutil.which("espeak-ng") is not None, "espeak-ng is not installed"),
    "browser": (find_chromium() is not None, "Chromium is not installed"),
    "node": ((PROJECT / "page" / "node_modules").is_dir(), "page/node_modules is missing: run `make page-check`"),
    "gpu": (_HAS_GPU, "no GPU with onnxruntime-gpu"),
    "no_gpu": (not _HAS_GPU, "there is a GPU"),
    "docker": (bool(os.environ.get("WHOLETRACK_CONTAINERS")), "tests of containers run with `make containers`"),
}
# What a machine may lack even if WHOLETRACK_NO_SKIPS is set.
_OPTIONAL = {"gpu", "no_gpu", "docker", "cgroup", "musicnn_package", "keras"}
# The files that take longest come first, so that both processes of `make test` end at about the same time.
_LONGEST = (
    *("e2e/test_predictions.py", "test_readme.py", "fuzz/test_fuzz.py", "e2e/test_contract.py", "e2e/test_examples.py"),
    *("wholetrack_training/systems/test_served_systems.py", "e2e/test_lifecycle.py", "e2e/test_pages.py"),
    "cluster/test_service.py",
    *(
        "wholetrack_training/cli/test_head.py",
        "e2e/test_no_music.py",
        "wholetrack_training/importing/test_import_musicnn.py",
    ),
    *("wholetrack_training/results/test_robustness.py", "wholetrack_training/publishing/test_two_towers.py"),
)
_RANKS = {PROJECT / "tests" / name: rank for rank, name in enumerate(_LONGEST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests whose requirements this machine does not meet, with the reason, and put long files first."""
    items.sort(key=lambda item: _RANKS.get(item.path, len(_RANKS)))
    for item in items:
        for name, (met, reason) in _REQUIREMENTS.items():
            if name in item.keywords and not met:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped tests if WHOLETRACK_NO_SKIPS is set, unless _OPTIONAL names what they need."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("WHOLETRACK_NO_SKIPS") and reporter is not None:
        skipped = [report for report in reporter.stats.get("skipped", []) if not _OPTIONAL & set(report.keywords)]
        if skipped:
            reporter.write_line(f"{len(skipped)} tests were skipped although WHOLETRACK_NO_SKIPS is set", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def music() -> Path:
    """The folder of real recordings."""
    return SHARED / "data"


@pytest.fixture(scope="session")
def ffmpeg() -> Ffmpeg:
    """The ffmpeg that the service decodes with. It may be unable to encode, so recordings come from `recorder`."""
    return find_ffmpeg(Settings().ffmpeg)


@pytest.fixture(scope="session")
def decoder(ffmpeg: Ffmpeg) -> FfmpegDecoder:
    return FfmpegDecoder(ffmpeg)


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    return Recorder(find_ffmpeg())


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    """The pipeline with the bundled models, on the CPU."""
    built = build_pipeline(Settings(device="cpu"))
    yield built
    built.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def tune() -> NDArray[np.float32]:
    """Ten seconds at 22,050 Hz with pitch, rhythm and noise, ``[n]``."""
    return generate_tune(10)
