"""Batches are halved until they fit in the memory of the device."""

from __future__ import annotations

import re
import subprocess
import sys
import weakref
from dataclasses import replace

import onnx
import onnxruntime
import pytest

from wholetrack.contracts import Rows, Windows
from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.inference import session as session_module
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.session import Session, open_session
from wholetrack.settings import DeviceChoice, Settings

TOO_LARGE = "[ONNXRuntimeError] : 6 : Status Message: /src/bfc_arena.cc:360 Failed to allocate memory\nand a trace"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundles(BUILT_IN_MODELS)["wholetrack-crnn-gtzan"]


class Gpu:
    """A GPU that can run a limited number of windows at a time.

    Attributes:
        capacity: That number.
        message: Message of the error that it raises for more.
        sizes: Number of windows in each run, by session.
        limits: Memory limit of each session.
    """

    def __init__(self, capacity: int, message: str = TOO_LARGE) -> None:
        self.capacity = capacity
        self.message = message
        self.sizes: list[list[int]] = []
        self.limits: list[int | None] = []
        self._sessions: list[weakref.ref[Session]] = []

    def open(self, bundle: Bundle, number: int, max_batch: int, memory_limit_bytes: int | None) -> Session:
        """Stand in for ``_cuda_session``."""
        assert not [session for session in self._sessions if session()], "a session that failed still holds memory"
        gpu, sizes = self, list[int]()
        self.sizes.append(sizes)
        self.limits.append(memory_limit_bytes)

        class Limited(Session):
            def run(self, windows: Windows) -> Rows:
                sizes.append(len(windows))
                if len(windows) > gpu.capacity:
                    raise RuntimeError(gpu.message)
                return super().run(windows)

        opened = Limited(
            onnxruntime.InferenceSession(bundle.onnx, providers=["CPUExecutionProvider"]),
            bundle,
            device=f"cuda:{number}",
            batch_sizes=[1 << exponent for exponent in range(max_batch.bit_length())],
        )
        self._sessions.append(weakref.ref(opened))
        return opened


def install(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_cuda_session", gpu.open)


def test_the_batch_is_halved_until_the_warm_up_succeeds(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = Gpu(capacity=5)
    install(gpu, monkeypatch)
    session = open_session(bundle, Settings(cuda_batch=16), "cuda:0", memory_limit_bytes=1000)
    assert session.max_batch == 4
    # One window first, then the largest batch, because the regions of smaller ones would be of no use to it.
    assert [sizes[:4] for sizes in gpu.sizes] == [[1, 16], [1, 8], [1, 4, 2, 1]]
    assert set(gpu.limits) == {1000}
    (message,) = caplog.messages
    assert message.startswith(
        "model wholetrack-crnn-gtzan on cuda:0: at most 4 windows per batch instead of 16, because"
    )
    assert "Failed to allocate memory" in message
    assert "\n" not in message


def test_a_batch_that_fits_is_not_changed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = Gpu(capacity=16)
    install(gpu, monkeypatch)
    assert open_session(bundle, Settings(cuda_batch=16), "cuda:0").max_batch == 16
    assert len(gpu.sizes) == 1
    assert caplog.messages == []


@pytest.mark.parametrize("configured", [1, 16])
def test_a_network_that_cannot_run_one_window_is_tried_once(
    configured: int, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(capacity=0)
    install(gpu, monkeypatch)
    with pytest.raises(
        UnavailableModelError, match=r"does not run on cuda:0 \(.*allocate memory\); on a GPU check its free memory"
    ) as caught:
        open_session(bundle, Settings(cuda_batch=configured), "cuda:0")
    assert gpu.sizes == [[1]]
    assert caught.value.device == "cuda:0"
    assert caught.value.reason == "the network fails on cuda:0 even with one window (not enough memory)"


def test_the_reason_for_clients_has_no_paths(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(capacity=0, message="/opt/cuda/libcudnn.so.9: cannot open shared object file\nand a long trace")
    install(gpu, monkeypatch)
    with pytest.raises(
        UnavailableModelError, match=r"cannot open shared object file\); .*WHOLETRACK_DEVICE=cpu$"
    ) as caught:
        open_session(bundle, Settings(), "cuda:0")
    assert caught.value.reason == "the network fails on cuda:0 even with one window"


def test_a_network_that_onnxruntime_cannot_open_is_unavailable(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Session:
        raise RuntimeError("nodes are assigned to the default CPU EP")

    monkeypatch.setattr(session_module, "_cuda_session", refuse)
    with pytest.raises(UnavailableModelError) as caught:
        open_session(bundle, Settings(), "cuda:0")
    assert caught.value.reason == "onnxruntime cannot open the network on cuda:0"


def network(operator: str, domain: str, output: str) -> bytes:
    """Return a network with one operator."""
    node = onnx.helper.make_node(operator, ["x"], [output], domain=domain)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 39, 128]) for name in ("x", "y")]
    opsets = [onnx.helper.make_opsetid(name, version) for name, version in (("", 17), ("com.example", 1))]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_a_network_with_an_operator_that_onnxruntime_lacks_is_unavailable(bundle: Bundle) -> None:
    unknown = replace(bundle, onnx=network("Custom", "com.example", "y"))
    with pytest.raises(UnavailableModelError, match=r"does not run on cpu \(.*Custom.* not a registered function"):
        open_session(unknown, Settings(device=DeviceChoice.CPU))


@pytest.mark.parametrize(("operator", "output"), [("Custom", "y"), ("Relu", "z")])
def test_a_network_that_no_device_could_run_breaks_the_contract(operator: str, output: str, bundle: Bundle) -> None:
    """An operator that the standard does not have, and an output that no operator computes."""
    invalid = replace(bundle, onnx=network(operator, "", output))
    with pytest.raises(
        StartupError, match=r"^wholetrack-crnn-gtzan: model.onnx is not a valid network \(.*\)$"
    ) as caught:
        open_session(invalid, Settings(device=DeviceChoice.CPU))
    assert not isinstance(caught.value, UnavailableModelError)


def test_golden_windows_that_raise_make_a_model_unavailable(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(Session, "self_test", fail)
    with pytest.raises(
        UnavailableModelError, match=r"does not run on cpu \(operands could not be broadcast together\)$"
    ):
        open_session(bundle, Settings(device=DeviceChoice.CPU))


def test_cuda_that_cannot_be_used_is_not_the_fault_of_the_model(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Session:
        raise StartupError("no driver")

    monkeypatch.setattr(session_module, "_cuda_session", refuse)
    with pytest.raises(StartupError, match="no driver") as caught:
        open_session(bundle, Settings(), "cuda:0")
    assert not isinstance(caught.value, UnavailableModelError)


@pytest.mark.timing
def test_a_batch_that_exceeds_the_address_space_is_halved_on_the_cpu_and_onnxruntime_prints_nothing() -> None:
    """With the real allocator. At 256 windows this network needs about 730 MiB."""
    program = """
import logging, resource
import psutil
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundles
from wholetrack.inference.session import open_session
from wholetrack.settings import Settings
logging.basicConfig(format="%(message)s")
bundle = load_bundles(BUILT_IN_MODELS)["campana-crnn"]
open_session(bundle, Settings(device="cpu", cpu_batch=1))
limit = psutil.Process().memory_info().vms + (400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(open_session(bundle, Settings(device="cpu", cpu_batch=256)).max_batch)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(ended.stdout) in {32, 64, 128}
    assert re.fullmatch(
        rf"model campana-crnn on cpu: at most {int(ended.stdout)} windows per batch instead of 256, .*\n", ended.stderr
    )
