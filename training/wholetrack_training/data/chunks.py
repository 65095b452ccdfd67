"""Chunks of equal length from a stream of audio blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def equal_chunks(blocks: Iterable[Samples], length: int) -> Iterator[Samples]:
    """Yield the same samples in chunks of ``length``, regardless of the block sizes; the last chunk may be shorter."""
    waiting: list[Samples] = []
    n_waiting = 0
    for block in blocks:
        waiting.append(block)
        n_waiting += len(block)
        if n_waiting >= length:
            joined = np.concatenate(waiting)
            whole = n_waiting - n_waiting % length
            yield from np.split(joined[:whole], range(length, whole, length))
            waiting, n_waiting = [joined[whole:]], n_waiting - whole
    if n_waiting:
        yield np.concatenate(waiting)
