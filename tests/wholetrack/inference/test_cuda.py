"""Whether there is a GPU, and what is said if onnxruntime cannot use it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest

from wholetrack.errors import StartupError
from wholetrack.inference.cuda import gpu_present, load_cuda


@pytest.fixture(autouse=True)
def _forget_libraries() -> Iterator[None]:
    load_cuda.cache_clear()
    yield
    load_cuda.cache_clear()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("proc/driver/nvidia/gpus/0000:3b:00.0", True),
        ("dev/nvidia0", True),
        ("dev/nvidia12", True),
        # A driver without a GPU.
        ("proc/driver/nvidia/version", False),
        ("dev/nvidiactl", False),
        ("dev/nvidia-uvm", False),
        ("dev/null", False),
    ],
)
def test_a_gpu_is_found_by_the_files_of_its_driver(path: str, expected: bool, tmp_path: Path) -> None:  # noqa: FBT001
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    assert gpu_present(tmp_path) == expected


@pytest.mark.no_gpu
def test_onnxruntime_without_cuda_is_reported() -> None:
    with pytest.raises(StartupError, match="install the extra 'gpu' in place of 'cpu'.*WHOLETRACK_DEVICE=cpu"):
        load_cuda()


@pytest.fixture
def cuda_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])


@pytest.mark.no_gpu
@pytest.mark.usefixtures("cuda_provider")
def test_cuda_without_a_driver_is_reported() -> None:
    with pytest.raises(StartupError, match=r"no NVIDIA driver was found \(libcuda.so.1 is missing\)"):
        load_cuda()


@pytest.mark.usefixtures("cuda_provider")
def test_libraries_that_onnxruntime_cannot_load_are_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def preload(directory: str) -> None:
        assert directory == ""
        print("Failed to load libcudnn.so.9: no such file")
        print("Please follow the instructions")

    monkeypatch.setattr(ctypes, "CDLL", lambda name: name)
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    for _ in range(2):
        load_cuda()
    assert caplog.messages == [
        "onnxruntime: Failed to load libcudnn.so.9: no such file; Please follow the instructions"
    ]
    assert capsys.readouterr().out == ""


@pytest.mark.no_gpu
@pytest.mark.parametrize(("module", "n_lines"), [("wholetrack.inference.session", 0), ("onnxruntime", 1)])
def test_a_cuda_session_does_not_log_that_it_has_no_plugin(module: str, n_lines: int) -> None:
    """Version 1.31 logs that warning to standard error even if it was built without CUDA, if asked at a low level."""
    program = f"""
import {module}
from onnxruntime import SessionOptions
from onnxruntime.capi.onnxruntime_pybind11_state import InferenceSession
from wholetrack.inference.bundle import BUILT_IN_MODELS
options = SessionOptions()
options.log_severity_level = 4
session = InferenceSession(options, str(BUILT_IN_MODELS / "wholetrack-crnn-gtzan" / "1" / "model.onnx"), True, False)
session.initialize_session(["CUDAExecutionProvider"], [{{"device_id": "0"}}], set())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr.count("No registered plugin EP device found") == n_lines
    assert len(ended.stderr.splitlines()) == n_lines
