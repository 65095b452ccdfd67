"""The axes of the input of a network, and how they are made from the service's ``[N, frames, n_mels]``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.errors import NetworkImportError


class Layout(StrEnum):
    """Axes of the input after the first one, which is that of the batch."""

    FRAMES_MELS = "frames,mels"
    MELS_FRAMES = "mels,frames"
    FRAMES_MELS_1 = "frames,mels,1"
    MELS_FRAMES_1 = "mels,frames,1"
    ONE_FRAMES_MELS = "1,frames,mels"
    ONE_MELS_FRAMES = "1,mels,frames"

    @property
    def transposed(self) -> bool:
        """Whether the axis of the mel bands precedes that of the frames."""
        return self.index("mels") < self.index("frames")

    def shape(self, frames: int, n_mels: int) -> tuple[int, ...]:
        """Return the shape of one window."""
        sizes = {"frames": frames, "mels": n_mels, "1": 1}
        return tuple(sizes[axis] for axis in self.split(","))

    def arranged(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return windows ``[n, frames, n_mels]`` with these axes."""
        ordered = windows.transpose(0, 2, 1) if self.transposed else windows
        return np.ascontiguousarray(ordered).reshape(len(windows), *self.shape(*windows.shape[1:]))


def layout_of(
    name: str, declared: Sequence[int | str | None] | None, shape: tuple[int, int], chosen: Layout | None
) -> Layout:
    """Find the layout of an input from the shape that the network declares.

    Args:
        name: Name of the input.
        declared: Sizes of the axes after the first one; anything but a number means any size. None if the network
            declares no shape.
        shape: Frames and mel bands of a window.
        chosen: The layout that the user chose; None to find it.

    Raises:
        NetworkImportError: If no layout fits, or several.
    """
    fitting = [
        layout
        for layout in ([chosen] if chosen else Layout)
        if declared is None or _fits(layout.shape(*shape), declared)
    ]
    sizes = [str(size) if isinstance(size, int) else "?" for size in declared or ()]
    shown = "unknown" if declared is None else f"[{', '.join(('N', *sizes))}]"
    if not fitting:
        raise NetworkImportError(
            f"the input {name!r} of the network has the shape {shown}, and the card describes windows of {shape[0]} "
            f"frames with {shape[1]} mel bands{f' in the layout {chosen}' if chosen else ''}: correct the one that is "
            "wrong; the service cannot feed networks with another kind of input, such as raw audio"
        )
    if len(fitting) > 1:
        raise NetworkImportError(
            f"the shape of the input {name!r}, which is {shown}, does not tell the order of its axes: pass --layout "
            f"with one of {' and '.join(repr(str(layout)) for layout in fitting)}"
        )
    return fitting[0]


def _fits(shape: tuple[int, ...], declared: Sequence[int | str | None]) -> bool:
    return len(shape) == len(declared) and all(
        size == found or not isinstance(found, int) for size, found in zip(shape, declared, strict=True)
    )
