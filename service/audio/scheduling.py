"""Where and how a decoder's threads run: together on one processor, and not woken for every frame.

ffmpeg's demuxer, decoder, filters and muxer are threads that hand frames of some milliseconds to each other. Spread
over processors, they spend more on waking each other than on decoding; ``python -m bench.decoding`` measures it.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress

from service.settings import available_cpus

_PROCESSORS = tuple(sorted(os.sched_getaffinity(0)))
_next_processor = itertools.cycle(_PROCESSORS)
# With a quota of a larger machine's time, the processor chosen could be one that somebody else keeps busy.
_may_choose = available_cpus() == len(_PROCESSORS)


def settle(pid: int) -> None:
    """Let a process that has just begun run as a batch job (sched(7)), on the next processor in turn.

    Without the right to do so, or once the process has ended, nothing happens.
    """
    with suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
        if _may_choose:
            os.sched_setaffinity(pid, {next(_next_processor)})
