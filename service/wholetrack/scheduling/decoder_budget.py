"""How many decoders may run at once, so that all of them together do not use more memory than there is."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from wholetrack.decoding.limits import DecoderMemory
from wholetrack.memory_limit import is_in_memory, memory_limit_bytes, used_bytes

_log = logging.getLogger(__name__)

_MIB = 1 << 20
# What a decoder uses besides its data: its stack, page tables and pipes.
_OVERHEAD_BYTES = 4 * _MIB
# The rest is for windows in progress, 8 MiB for each open track (docs/bench/memory.json), and for what the service
# allocates later.
_SHARE_OF_DECODERS = 3 / 4
_SHARE_OF_LARGE_DECODERS = 1 / 4


def decoder_budget_bytes(*, reserved_bytes: int, temp_dir: Path) -> int:
    """Return how much memory all decoders together may use. Call it when the models have been loaded.

    Args:
        reserved_bytes: Memory for cached predictions and for feature workers.
        temp_dir: Folder for uploads. If it is on a tmpfs, uploads may use memory up to the size of the tmpfs.
    """
    free = memory_limit_bytes() - used_bytes() - reserved_bytes
    if is_in_memory(temp_dir.resolve()):
        space = os.statvfs(temp_dir)
        free -= min(space.f_blocks * space.f_frsize, free // 2)
    return max(0, int(free * _SHARE_OF_DECODERS))


def decoders_at_once(budget_bytes: int, *, tracks_open: int) -> dict[DecoderMemory, int]:
    """Return how many decoders of each size may run at once.

    The sizes have separate parts of the budget, so that files that need much memory wait for each other only, and
    never delay the others. At least one decoder of each size may run, even if that exceeds the budget.

    Args:
        budget_bytes: Memory for all decoders.
        tracks_open: Upper limit for each size.
    """
    ordinary, large = (memory.value + _OVERHEAD_BYTES for memory in (DecoderMemory.ORDINARY, DecoderMemory.LARGE))
    n_large = min(max(int(budget_bytes * _SHARE_OF_LARGE_DECODERS) // large, 1), tracks_open)
    n_ordinary = min(max((budget_bytes - n_large * large) // ordinary, 1), tracks_open)
    _log.info(
        "up to %d decoders with %d MiB and %d with %d MiB run at once, within %d MiB",
        *(n_ordinary, DecoderMemory.ORDINARY.value // _MIB),
        *(n_large, DecoderMemory.LARGE.value // _MIB, budget_bytes // _MIB),
    )
    if n_ordinary * ordinary + n_large * large > budget_bytes:
        _log.warning("two decoders can exceed the memory for decoders; give the service more memory")
    return {DecoderMemory.ORDINARY: n_ordinary, DecoderMemory.LARGE: n_large}
