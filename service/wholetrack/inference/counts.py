"""What the devices of an engine have done, for whoever watches them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from wholetrack.inference.gpu_memory import GpuMemory


@dataclass(slots=True)
class DeviceCounts:
    """What a device has done so far.

    Attributes:
        batches: runs that succeeded, by number of windows.
        busy_s: time in the device, in seconds, failures included; of threads that share it, the sum.
        failures: runs that failed.
        replacements: threads given up and replaced.
        healthy: whether a thread of it is there to answer and its last run succeeded.
        memory: of a GPU, after the last run; None on a CPU.
    """

    batches: Counter[int] = field(default_factory=Counter)
    busy_s: float = 0.0
    failures: int = 0
    replacements: int = 0
    healthy: bool = False
    memory: GpuMemory | None = None


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """What an engine has done so far.

    Attributes:
        devices: by name.
        waiting: windows that wait for a device now.
        tracks: open now.
    """

    devices: dict[str, DeviceCounts]
    waiting: int
    tracks: int
