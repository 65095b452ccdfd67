"""Name and utilisation of the NVIDIA GPU, as ``nvidia-smi`` reports them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean

from tests.harness.sampling import sampling

_SAMPLE_S = 0.5


def gpu_name() -> str:
    """Return the name of the first GPU."""
    return _query("name")


class GpuShare:
    """The share of the time in which the first GPU is busy.

    A GPU counts as busy while a kernel is running, even if that uses a small part of it.
    """

    def __init__(self) -> None:
        self._samples: list[float] = []

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Take samples during the block."""
        with sampling(lambda: float(_query("utilization.gpu")) / 100, every_s=_SAMPLE_S) as self._samples:
            yield

    @property
    def mean(self) -> float:
        """Mean of the samples."""
        return mean(self._samples)


def _query(field: str) -> str:
    command = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
