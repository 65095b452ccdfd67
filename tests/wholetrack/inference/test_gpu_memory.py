"""The memory of a GPU, as a stand-in for its driver reports it, and how models share it."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import pytest

from wholetrack.errors import StartupError
from wholetrack.inference.gpu_memory import GpuMemory, MemoryBudget, measure_gpu, memory_reader

MIB = 1 << 20


class Driver:
    """A driver of a machine with one GPU.

    Attributes:
        statuses: Result of each function, 0 if it is missing.
        calls: Names of the functions that were called.
    """

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def function(*arguments: Any) -> int:
            self.calls.append(name)
            if name == "cuMemGetInfo_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = 300, 1000
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"invalid device ordinal"
            return self.statuses.get(name, 0)

        return function


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setattr(ctypes, "CDLL", {"libcuda.so.1": found}.__getitem__)
    return found


def test_the_memory_of_the_gpu_in_use_is_read_from_its_driver(driver: Driver) -> None:
    read = memory_reader()
    found = read()
    assert found
    assert (found.used, found.size) == (700, 1000)
    driver.statuses["cuMemGetInfo_v2"] = 201  # no context
    assert read() is None


def test_the_memory_of_a_gpu_is_read_before_its_first_use(driver: Driver) -> None:
    found = measure_gpu(0)
    assert (found.used, found.size) == (700, 1000)
    assert driver.calls == [
        "cuInit",
        "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
        "cuCtxSetCurrent",
        "cuMemGetInfo_v2",
    ]


def test_a_gpu_that_does_not_exist_is_named(driver: Driver) -> None:
    driver.statuses["cuDeviceGet"] = 101
    with pytest.raises(StartupError, match=r"^GPU 3 cannot be used: .* returns 101 \(invalid device ordinal\)$"):
        measure_gpu(3)


def test_a_driver_that_does_not_report_memory_is_refused(driver: Driver) -> None:
    driver.statuses["cuMemGetInfo_v2"] = 201
    with pytest.raises(StartupError, match="GPU 0 cannot be used: its driver does not report its memory"):
        measure_gpu(0)


class Gpu:
    """A GPU whose memory in use the test sets."""

    def __init__(self, *, used: int, size: int) -> None:
        self.used, self.size = used, size

    def measure(self) -> GpuMemory:
        return GpuMemory(used=self.used, size=self.size, measured_at=time.monotonic())


def test_a_model_leaves_what_it_does_not_need_to_later_ones() -> None:
    gpu = Gpu(used=500 * MIB, size=8000 * MIB)
    budget = MemoryBudget(gpu.measure, 2000 * MIB)
    with budget.sharing(1 / 2) as limit:
        assert limit == 1000 * MIB
        gpu.used += 200 * MIB
    with budget.sharing(1 / 2) as limit:
        assert limit == 900 * MIB
        gpu.used += 900 * MIB
    with budget.sharing(1) as limit:
        assert limit == 900 * MIB


def test_what_other_processes_use_does_not_count() -> None:
    gpu = Gpu(used=0, size=8000 * MIB)
    budget = MemoryBudget(gpu.measure, 2000 * MIB)
    with budget.sharing(1 / 2):
        gpu.used += 200 * MIB
    gpu.used += 5000 * MIB
    with budget.sharing(1) as limit:
        assert limit == 1800 * MIB
    gpu.used = 100 * MIB
    with budget.sharing(1):
        gpu.used = 50 * MIB
    with budget.sharing(1) as limit:
        assert limit == 1800 * MIB


def test_a_model_that_cannot_be_opened_does_not_count() -> None:
    gpu = Gpu(used=0, size=8000 * MIB)
    budget = MemoryBudget(gpu.measure, 2000 * MIB)

    def fail() -> None:
        with budget.sharing(1):
            gpu.used += 500 * MIB
            raise StartupError

    with pytest.raises(StartupError):
        fail()
    with budget.sharing(1) as limit:
        assert limit == 2000 * MIB


def test_without_a_limit_most_of_the_free_memory_is_shared() -> None:
    gpu = Gpu(used=2000 * MIB, size=12000 * MIB)
    budget = MemoryBudget(gpu.measure)
    with budget.sharing(1) as limit:
        assert limit == 9000 * MIB
        gpu.used += 1000 * MIB
    with budget.sharing(1) as limit:
        assert limit == 8000 * MIB


def test_a_share_is_never_more_than_what_is_free() -> None:
    gpu = Gpu(used=7500 * MIB, size=8000 * MIB)
    with MemoryBudget(gpu.measure, 2000 * MIB).sharing(1) as limit:
        assert limit == 500 * MIB


def test_a_share_of_nothing_is_a_limit_nevertheless() -> None:
    """Onnxruntime takes 0 for no limit."""
    gpu = Gpu(used=0, size=8000 * MIB)
    budget = MemoryBudget(gpu.measure, 2000 * MIB)
    with budget.sharing(1):
        gpu.used = 3000 * MIB
    with budget.sharing(1) as limit:
        assert limit == MIB
