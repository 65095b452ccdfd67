"""Sessions: the self-test, 8-bit integers, and outputs that do not depend on the rest of the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from tests.harness.bundles import resized
from wholetrack.contracts import Rows
from wholetrack.errors import StartupError
from wholetrack.inference import session as session_module
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.session import Session, open_session
from wholetrack.settings import Precision, Settings


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundles(BUILT_IN_MODELS)["wholetrack-crnn-gtzan"]


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return open_session(bundle, Settings())


def test_a_session_reproduces_the_golden_outputs(bundle: Bundle, session: Session) -> None:
    (found,) = session.run(bundle.golden.windows[: session.max_batch]).arrays
    np.testing.assert_allclose(found, bundle.golden.outputs.arrays[0][: session.max_batch], atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)


def test_a_device_with_wrong_outputs_is_refused(bundle: Bundle) -> None:
    golden = replace(bundle.golden, outputs=Rows.of(np.roll(bundle.golden.outputs.arrays[0], 1, axis=1)))
    with pytest.raises(StartupError, match="gives wrong outputs on cpu"):
        open_session(replace(bundle, golden=golden), Settings())


def test_a_device_that_returns_nan_is_refused(bundle: Bundle) -> None:
    golden = replace(bundle.golden, outputs=Rows.of(np.full_like(bundle.golden.outputs.arrays[0], np.nan)))
    with pytest.raises(StartupError, match="gives wrong outputs"):
        open_session(replace(bundle, golden=golden), Settings())


@pytest.fixture(scope="module")
def int8_session(bundle: Bundle) -> Session:
    return open_session(bundle, Settings(cpu_precision=Precision.INT8))


def test_int8_is_used_if_configured(bundle: Bundle, session: Session, int8_session: Session) -> None:
    assert (session.precision, int8_session.precision) == ("float32", "int8")
    windows = bundle.golden.windows
    off = np.abs(int8_session.run(windows).arrays[0] - session.run(windows).arrays[0]).max()
    assert bundle.card.int8
    assert 1e-5 < off <= bundle.card.int8.tolerance


def test_int8_outputs_do_not_depend_on_the_rest_of_the_batch(bundle: Bundle, int8_session: Session) -> None:
    windows = resized(bundle.golden.windows, 16)
    (together,) = int8_session.run(windows).arrays
    for i in range(0, len(windows), 3):
        np.testing.assert_allclose(int8_session.run(windows[i : i + 1]).arrays[0][0], together[i], atol=1e-5)


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


def test_outputs_do_not_depend_on_the_rest_of_the_batch(session: Session, rng: np.random.Generator) -> None:
    windows = Rows.of(rng.random((session.max_batch, *session.window_shapes[0]), dtype=np.float32))
    (together,) = session.run(windows).arrays
    for i in range(0, len(windows), 3):
        np.testing.assert_allclose(session.run(windows[i : i + 1]).arrays[0][0], together[i], atol=1e-5)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(bundle: Bundle, session: Session, rng: np.random.Generator) -> None:
    on_gpu = open_session(bundle, Settings(), "cuda:0")
    assert on_gpu.device == "cuda:0"
    windows = Rows.of(rng.random((13, *session.window_shapes[0]), dtype=np.float32))
    np.testing.assert_allclose(on_gpu.run(windows).arrays[0], session.run(windows).arrays[0], atol=1e-3)
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
open_session(load_bundles(BUILT_IN_MODELS)["wholetrack-crnn-gtzan"], Settings(device="cpu"))
"""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "ORT_DISABLE_TELEMETRY": "0"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not [*tmp_path.rglob("*")]
