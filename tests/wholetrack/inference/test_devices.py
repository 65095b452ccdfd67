"""Which device runs each model, with stand-ins for GPUs."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from pydantic import ValidationError

from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.inference import devices as devices_module
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.devices import Devices
from wholetrack.inference.gpu_memory import GpuMemory
from wholetrack.inference.session import Session, open_session
from wholetrack.settings import DeviceChoice, Settings

MIB = 1 << 20
LOST = "CUDA failure 700: an illegal memory access was encountered"


class Gpus:
    """GPUs of 8,000 MiB each. Opening a model takes 100 MiB.

    Attributes:
        numbers: GPUs that exist.
        broken: Why opening a model on a GPU fails, by name of the model.
        opened: The model, the device and the memory limit of every session on a GPU, in MiB.
        present: Whether the machine seems to have a GPU.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._cpu = open_session(bundle, Settings(device=DeviceChoice.CPU))
        self._used: dict[str, int] = {}
        self.numbers = {0}
        self.broken: dict[str, str] = {}
        self.opened: list[tuple[str, str, int]] = []
        self.present = True

    def measure(self, number: int) -> GpuMemory:
        if number not in self.numbers:
            raise StartupError(f"there is no GPU {number}")
        used = self._used.get(f"cuda:{number}", 0)
        return GpuMemory(used=used, size=8000 * MIB, measured_at=time.monotonic())

    def open_session(
        self, bundle: Bundle, _: Settings, device: str = "cpu", *, memory_limit_bytes: int | None = None
    ) -> Session:
        if device == "cpu":
            return self._cpu
        if problem := self.broken.get(bundle.card.name):
            raise UnavailableModelError(
                f"{bundle.card.name} does not run: {problem}", device=device, reason="the network fails"
            )
        assert memory_limit_bytes
        self._used[device] = self._used.get(device, 0) + 100 * MIB
        self.opened.append((bundle.card.name, device, memory_limit_bytes // MIB))
        return Session(self._cpu._session, bundle, device=device, batch_sizes=[1, 2])

    def devices(self, settings: Settings, n_models: int) -> Devices:
        return Devices(settings, n_models, measure=self.measure, present=lambda: self.present)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundles(BUILT_IN_MODELS)["wholetrack-crnn-gtzan"]


@pytest.fixture
def gpus(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    found = Gpus(bundle)
    monkeypatch.setattr(devices_module, "load_cuda", lambda: None)
    monkeypatch.setattr(devices_module, "open_session", found.open_session)
    return found


def named(bundle: Bundle, *names: str) -> list[Bundle]:
    return [replace(bundle, card=bundle.card.model_copy(update={"name": name})) for name in names]


def test_the_models_on_a_gpu_share_its_memory(gpus: Gpus, bundle: Bundle) -> None:
    """The first may take half; the others share what is left."""
    devices = gpus.devices(Settings(device=DeviceChoice.CUDA, cuda_memory_mb=1000), 3)
    for each in named(bundle, "a", "b", "c"):
        devices.open(each)
    assert gpus.opened == [("a", "cuda:0", 500), ("b", "cuda:0", 450), ("c", "cuda:0", 800)]


def test_a_single_model_may_use_all_memory(gpus: Gpus, bundle: Bundle) -> None:
    gpus.devices(Settings(device=DeviceChoice.CUDA), 1).open(bundle)
    assert gpus.opened == [("wholetrack-crnn-gtzan", "cuda:0", 7200)]


def test_several_gpus_with_several_sessions_each(gpus: Gpus, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed session is reopened on its own device, with the same limit."""
    gpus.numbers = {1, 3}
    monkeypatch.setenv("WHOLETRACK_CUDA_DEVICES", "[1, 3]")
    devices = gpus.devices(Settings(device=DeviceChoice.AUTO, cuda_sessions=2, cuda_memory_mb=1000), 1)
    opened = devices.open(bundle)
    assert [session.device for session in opened.sessions] == ["cuda:1", "cuda:1", "cuda:3", "cuda:3"]
    assert len(set(opened.sessions)) == 4
    assert opened.cpu_fallback is None
    assert devices.reopen(bundle, opened.sessions[2]).device == "cuda:3"
    assert {limit for _, _, limit in gpus.opened} == {500}


@pytest.mark.parametrize("wrong", ["[]", "[-1]", "0", '["first"]'])
def test_invalid_gpu_numbers_are_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHOLETRACK_CUDA_DEVICES", wrong)
    with pytest.raises(ValidationError, match="cuda_devices"):
        Settings()


def test_either_all_listed_gpus_are_used_or_none(gpus: Gpus, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHOLETRACK_CUDA_DEVICES", "[0, 3]")
    with pytest.raises(StartupError, match="no GPU 3"):
        gpus.devices(Settings(device=DeviceChoice.CUDA), 1)
    opened = gpus.devices(Settings(device=DeviceChoice.AUTO, cpu_threads=3), 1).open(bundle)
    assert [session.device for session in opened.sessions] == ["cpu"] * 3
    assert len(set(opened.sessions)) == 1
    assert opened.cpu_fallback == "there is no GPU 3"


def test_a_model_that_does_not_run_on_the_gpu_is_refused_with_cuda(gpus: Gpus, bundle: Bundle) -> None:
    gpus.broken["b"] = "not supported"
    devices = gpus.devices(Settings(device=DeviceChoice.CUDA, cuda_memory_mb=1000), 3)
    first, second, third = named(bundle, "a", "b", "c")
    devices.open(first)
    with pytest.raises(UnavailableModelError, match="b does not run: not supported"):
        devices.open(second)
    devices.open(third)
    assert gpus.opened[-1] == ("c", "cuda:0", 900)


def test_a_model_that_does_not_run_on_the_gpu_uses_the_cpu_with_auto(
    gpus: Gpus, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    gpus.broken["b"] = "not supported"
    devices = gpus.devices(Settings(device=DeviceChoice.AUTO), 3)
    opened = [devices.open(each) for each in named(bundle, "a", "b", "c")]
    assert [each.sessions[0].device for each in opened] == ["cuda:0", "cpu", "cuda:0"]
    assert [each.cpu_fallback for each in opened] == [None, "the network fails", None]
    assert caplog.messages == ["device=auto: b uses the CPU, not CUDA: b does not run: not supported"]


def test_with_auto_no_model_uses_gpus_that_the_first_cannot_use(
    gpus: Gpus, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    gpus.broken["a"] = LOST
    devices = gpus.devices(Settings(device=DeviceChoice.AUTO), 2)
    opened = [devices.open(each) for each in named(bundle, "a", "b")]
    assert [each.sessions[0].device for each in opened] == ["cpu", "cpu"]
    assert {each.cpu_fallback for each in opened} == {"the default model does not run on the GPU: the network fails"}
    assert caplog.messages == [f"device=auto: using the CPU, not CUDA, although there is a GPU: a does not run: {LOST}"]


@pytest.mark.parametrize("device", [DeviceChoice.AUTO, DeviceChoice.CUDA])
def test_a_model_that_ends_the_cuda_context_prevents_startup(device: DeviceChoice, gpus: Gpus, bundle: Bundle) -> None:
    """Those opened before would fail with their first batch, the process would end, and start again the same way."""
    gpus.broken["b"] = LOST
    devices = gpus.devices(Settings(device=device), 2)
    first, second = named(bundle, "a", "b")
    devices.open(first)
    with pytest.raises(StartupError, match="b does not run: .* no longer use the GPU") as caught:
        devices.open(second)
    assert not isinstance(caught.value, UnavailableModelError)


def test_auto_without_a_gpu_uses_the_cpu_and_reports_no_fallback(
    gpus: Gpus, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    gpus.numbers, gpus.present = set(), False
    with caplog.at_level("INFO"):
        opened = gpus.devices(Settings(device=DeviceChoice.AUTO), 1).open(bundle)
    assert (opened.sessions[0].device, opened.cpu_fallback) == ("cpu", None)
    assert caplog.messages == ["device=auto: using the CPU, not CUDA: there is no GPU 0"]


@pytest.mark.no_gpu
def test_auto_on_a_machine_without_a_gpu(bundle: Bundle) -> None:
    opened = Devices(Settings(device=DeviceChoice.AUTO), 1).open(bundle)
    assert (opened.sessions[0].device, opened.cpu_fallback) == ("cpu", None)
