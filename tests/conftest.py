"""What tests share: the real music beside the project, ffmpeg, the bundled model, recordings made of arithmetic."""

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

from tests.harness.recordings import Recorder
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg, find_ffmpeg
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

PROJECT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("WHOLETRACK_SHARED", PROJECT.parent / "shared"))

_HAS_GPU = Path("/dev/nvidiactl").exists() and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
_NEEDS = {
    "data": ((SHARED / "data").is_dir(), f"the real music is not there: {SHARED / 'data'} does not exist"),
    "torch": (importlib.util.find_spec("torch") is not None, "PyTorch is not installed: pip install -e '.[train]'"),
    "curl": (shutil.which("curl") is not None, "curl is not installed"),
    "espeak": (shutil.which("espeak-ng") is not None, "espeak-ng is not installed"),
    "gpu": (_HAS_GPU, "no GPU with onnxruntime-gpu"),
    "no_gpu": (not _HAS_GPU, "there is a GPU"),
    "docker": (bool(os.environ.get("WHOLETRACK_CONTAINERS")), "containers are for `make containers`"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason, what this machine lacks; nothing else is ever skipped."""
    for item in items:
        for name, (there, reason) in _NEEDS.items():
            if name in item.keywords and not there:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped something although it was told that nothing is missing but a GPU or Docker."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("WHOLETRACK_NO_SKIPS") and reporter is not None:
        may_be_missing = {"gpu", "no_gpu", "docker"}
        skipped = [report for report in reporter.stats.get("skipped", []) if not may_be_missing & set(report.keywords)]
        if skipped:
            reporter.write_line(f"{len(skipped)} tests were skipped where nothing is missing", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def music() -> Path:
    """The folder of real music."""
    return SHARED / "data"


@pytest.fixture(scope="session")
def ffmpeg() -> Ffmpeg:
    """The ffmpeg that decodes; recordings are made by one that can write them, which is not always the same."""
    return find_ffmpeg(Settings().ffmpeg)


@pytest.fixture(scope="session")
def decoder(ffmpeg: Ffmpeg) -> FfmpegDecoder:
    return FfmpegDecoder(ffmpeg)


@pytest.fixture(scope="session")
def recorder() -> Recorder:
    return Recorder(find_ffmpeg())


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Pipeline]:
    """The pipeline around the bundled model, on the CPU."""
    built = build_pipeline(Settings(device="cpu"))
    yield built
    built.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def tune() -> NDArray[np.float32]:
    """Ten seconds at 22,050 Hz of something with pitch, rhythm and noise."""
    rate = 22050
    time = np.arange(10 * rate) / rate
    melody = np.sin(2 * np.pi * 220 * 2 ** (np.floor(time * 3) % 5 / 6) * time)
    beat = np.exp(-((time * 2) % 1) * 25) * np.random.default_rng(1).standard_normal(len(time))
    return (0.2 * melody + 0.15 * beat).astype(np.float32)
