"""Sessions: the self-test, broken devices, 8-bit integers, and outputs that do not depend on the rest of the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from wholetrack.errors import StartupError
from wholetrack.inference import session as session_module
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.gpu_memory import memory_reader
from wholetrack.inference.session import Session, open_session, open_sessions, reopen_session
from wholetrack.settings import DeviceChoice, Precision, Settings


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundles(BUILT_IN_MODELS)["wholetrack-crnn"]


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return open_session(bundle, Settings())


def test_a_session_reproduces_the_golden_outputs(bundle: Bundle, session: Session) -> None:
    found = session.run(bundle.golden.windows[: session.max_batch])
    np.testing.assert_allclose(found, bundle.golden.probabilities[: session.max_batch], atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)


def test_a_device_with_wrong_outputs_is_refused(bundle: Bundle) -> None:
    golden = replace(bundle.golden, probabilities=np.roll(bundle.golden.probabilities, 1, axis=1))
    with pytest.raises(StartupError, match="gives wrong outputs on cpu"):
        open_session(replace(bundle, golden=golden), Settings())


def test_a_device_that_returns_nan_is_refused(bundle: Bundle) -> None:
    golden = replace(bundle.golden, probabilities=np.full_like(bundle.golden.probabilities, np.nan))
    with pytest.raises(StartupError, match="gives wrong outputs"):
        open_session(replace(bundle, golden=golden), Settings())


class Broken(Session):
    """CUDA without cuDNN: the session opens, and its first run fails."""

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.device != "cpu":
            raise RuntimeError("libcudnn.so.9: cannot open shared object file\nand a long trace")
        return super().run(windows)


def gpu_session(kind: type[Session], bundle: Bundle, number: int) -> Session:
    """A stand-in for a session on a GPU."""
    onnx_session = onnxruntime.InferenceSession(bundle.onnx, providers=["CPUExecutionProvider"])
    return kind(onnx_session, bundle, device=f"cuda:{number}", batch_sizes=[1, 2])


def test_cuda_that_opens_but_cannot_run_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_broken(bundle: Bundle, _: Settings, number: int) -> Session:
        return gpu_session(Broken, bundle, number)

    monkeypatch.setattr("wholetrack.inference.session._cuda_session", open_broken)
    with pytest.raises(StartupError, match=r"cannot open shared object file\); on a GPU check.*WHOLETRACK_DEVICE=cpu$"):
        open_sessions(bundle, Settings(device=DeviceChoice.CUDA))
    found = open_sessions(bundle, Settings(device=DeviceChoice.AUTO, cpu_threads=3))
    assert [session.device for session in found] == ["cpu"] * 3
    assert len(set(found)) == 1


def test_several_gpus_with_several_sessions_each(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either all listed GPUs can be used or none is. A failed session is reopened on its own device."""
    available = {1, 3}

    def open_available(bundle: Bundle, _: Settings, number: int) -> Session:
        if number not in available:
            raise StartupError(f"there is no GPU {number}")
        return gpu_session(Session, bundle, number)

    monkeypatch.setattr("wholetrack.inference.session._cuda_session", open_available)
    monkeypatch.setenv("WHOLETRACK_CUDA_DEVICES", "[1, 3]")
    settings = Settings(device=DeviceChoice.AUTO, cuda_sessions=2)
    sessions = open_sessions(bundle, settings)
    assert [session.device for session in sessions] == ["cuda:1", "cuda:1", "cuda:3", "cuda:3"]
    assert len(set(sessions)) == 4
    assert reopen_session(bundle, settings, sessions[2]).device == "cuda:3"
    available.remove(3)
    with pytest.raises(StartupError, match="no GPU 3"):
        reopen_session(bundle, settings, sessions[2])
    assert open_sessions(bundle, settings)[0].device == "cpu"
    with pytest.raises(StartupError, match="no GPU 3"):
        open_sessions(bundle, Settings(device=DeviceChoice.CUDA))


@pytest.mark.parametrize("wrong", ["[]", "[-1]", "0", '["first"]'])
def test_invalid_gpu_numbers_are_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHOLETRACK_CUDA_DEVICES", wrong)
    with pytest.raises(ValidationError, match="cuda_devices"):
        Settings()


def test_the_memory_of_a_gpu_is_read_from_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    status = 0

    class Driver:
        def cuMemGetInfo_v2(self, free: Any, size: Any) -> int:  # noqa: N802 - the driver's name for it
            free._obj.value, size._obj.value = 300, 1000
            return status

    monkeypatch.setattr("ctypes.CDLL", lambda name: {"libcuda.so.1": Driver()}[name])
    read = memory_reader()
    found = read()
    assert found
    assert (found.used, found.size) == (700, 1000)
    status = 201  # no context
    assert read() is None


@pytest.fixture(scope="module")
def int8_session(bundle: Bundle) -> Session:
    return open_session(bundle, Settings(cpu_precision=Precision.INT8))


def test_int8_is_used_if_configured(bundle: Bundle, session: Session, int8_session: Session) -> None:
    assert (session.precision, int8_session.precision) == ("float32", "int8")
    windows = bundle.golden.windows
    off = np.abs(int8_session.run(windows) - session.run(windows)).max()
    assert bundle.card.int8
    assert 1e-5 < off <= bundle.card.int8.tolerance


def test_int8_outputs_do_not_depend_on_the_rest_of_the_batch(bundle: Bundle, int8_session: Session) -> None:
    windows = np.resize(bundle.golden.windows, (16, *bundle.golden.windows.shape[1:]))
    together = int8_session.run(windows)
    for i in range(0, len(windows), 3):
        np.testing.assert_allclose(int8_session.run(windows[i : i + 1])[0], together[i], atol=1e-5)


def test_a_bundle_without_int8_runs_in_float32(bundle: Bundle) -> None:
    found = open_session(replace(bundle, int8=None), Settings(cpu_precision=Precision.INT8))
    assert found.precision == "float32"


def test_the_self_test_of_int8_has_a_tolerance_of_its_own(bundle: Bundle) -> None:
    assert bundle.card.int8
    strict = bundle.card.model_copy(update={"int8": bundle.card.int8.model_copy(update={"tolerance": 1e-5})})
    with pytest.raises(StartupError, match="gives wrong outputs on cpu in int8"):
        open_session(replace(bundle, card=strict), Settings(cpu_precision=Precision.INT8))


def test_an_idle_model_releases_its_batch_memory() -> None:
    bundle = load_bundles(BUILT_IN_MODELS)["campana-crnn"]
    session = open_session(bundle, Settings())
    process = psutil.Process()
    at_rest = process.memory_info().rss
    session.warm_up()
    warm = process.memory_info().rss
    assert warm > at_rest + (16 << 20)
    session.shrink_arena()
    assert process.memory_info().rss < (at_rest + warm) / 2
    session.self_test(bundle)


def test_outputs_do_not_depend_on_the_rest_of_the_batch(
    bundle: Bundle, session: Session, rng: np.random.Generator
) -> None:
    windows = rng.random((session.max_batch, *bundle.card.onnx.shape[1:]), dtype=np.float32)
    together = session.run(windows)
    for i in range(0, len(windows), 3):
        np.testing.assert_allclose(session.run(windows[i : i + 1])[0], together[i], atol=1e-5)


@pytest.mark.no_gpu
def test_onnxruntime_without_cuda_is_reported(bundle: Bundle) -> None:
    with pytest.raises(StartupError, match="install the extra 'gpu' in place of 'cpu'.*WHOLETRACK_DEVICE=cpu"):
        open_session(bundle, Settings(), "cuda:0")


@pytest.mark.no_gpu
def test_cuda_without_a_driver_is_reported(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(StartupError, match=r"no NVIDIA driver was found \(libcuda.so.1 is missing\)"):
        open_session(bundle, Settings(), "cuda:0")


@pytest.mark.no_gpu
def test_auto_falls_back_to_the_cpu_and_logs_the_reason(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert open_sessions(bundle, Settings(device=DeviceChoice.AUTO))[0].device == "cpu"
    assert "using the CPU, not CUDA:" in caplog.text


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(bundle: Bundle, session: Session, rng: np.random.Generator) -> None:
    on_gpu = open_session(bundle, Settings(), "cuda:0")
    assert on_gpu.device == "cuda:0"
    windows = rng.random((13, *bundle.card.onnx.shape[1:]), dtype=np.float32)
    np.testing.assert_allclose(on_gpu.run(windows), session.run(windows), atol=1e-3)
    assert on_gpu.memory
    assert 0 < on_gpu.memory.used < on_gpu.memory.size


@pytest.mark.parametrize(
    ("device", "provider"),
    [("cpu", "CPUExecutionProvider"), pytest.param("cuda:0", "CUDAExecutionProvider", marks=pytest.mark.gpu)],
)
def test_every_node_runs_on_the_device(
    device: str, provider: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """According to onnxruntime's profile: the list of providers of a session does not show where its nodes run."""
    options = session_module._session_options()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    monkeypatch.setattr(session_module, "_session_options", lambda: options)
    session = open_session(bundle, Settings(), device)
    events = json.loads(Path(session._session.end_profiling()).read_text())
    nodes = [event["args"] for event in events if event["cat"] == "Node" and "provider" in event["args"]]
    assert {"Conv", "GRU"} <= {node["op_name"] for node in nodes}
    assert {node["provider"] for node in nodes} == {provider}


def test_the_graph_can_run_on_cuda_as_a_whole(bundle: Bundle) -> None:
    """No node that the CUDA provider leaves to the CPU, and a GRU in the form that cuDNN supports."""
    nodes = onnx.load_from_string(bundle.onnx).graph.node
    assert not {node.op_type for node in nodes} & {"Shape", "Loop", "Scan", "If", "STFT"}
    for gru in (node for node in nodes if node.op_type == "GRU"):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in gru.attribute}
        assert attributes["linear_before_reset"] == 1
        assert attributes.get("layout", 0) == 0
        assert "activations" not in attributes
        assert "clip" not in attributes


@pytest.mark.parametrize(
    "module",
    [
        "wholetrack.inference.session",
        pytest.param("wholetrack_training.publishing.bundles", marks=pytest.mark.torch),
        "tests.conftest",
        "tests.harness.records",
    ],
)
def test_onnxruntime_sends_no_telemetry(module: str, tmp_path: Path) -> None:
    """Its telemetry would store a device id and a queue below the home folder."""
    program = f"""
import {module}
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundles
from wholetrack.inference.session import open_session
from wholetrack.settings import Settings
open_session(load_bundles(BUILT_IN_MODELS)["wholetrack-crnn"], Settings(device="cpu"))
"""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "ORT_DISABLE_TELEMETRY": "0"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not [*tmp_path.rglob("*")]
