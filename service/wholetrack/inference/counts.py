"""What the devices of an engine have done, for metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from wholetrack.inference.gpu_memory import GpuMemory


@dataclass(slots=True)
class DeviceCounts:
    """Counters of one device.

    Attributes:
        batches: Number of successful runs by batch size in windows.
        busy_s: Time spent in runs, failed ones included, in seconds; the sum over workers that share the device.
        failures: Runs that raised an error.
        replacements: Workers given up because they hung, died or always raised.
        healthy: Whether the device has a worker whose last run succeeded.
        memory: Memory of the GPU after the last run; None on a CPU.
    """

    batches: Counter[int] = field(default_factory=Counter)
    busy_s: float = 0.0
    failures: int = 0
    replacements: int = 0
    healthy: bool = False
    memory: GpuMemory | None = None


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """A snapshot of an engine.

    Attributes:
        devices: Counters by device name.
        waiting: Number of windows that wait for a device.
        tracks: Number of open tracks.
    """

    devices: dict[str, DeviceCounts]
    waiting: int
    tracks: int
