"""Finds out whether ffmpeg may have ended early, or lost a part of the audio, because it was short of memory."""

from __future__ import annotations

import signal
from pathlib import Path

from wholetrack.decoding.container import has_accepted_signature
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.sandbox.protocol import NOT_STARTED

# An allocation that fails and is not checked leads to one of these.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP})


def may_lack_memory(
    path: Path, *, status: int, exit_signal: int | None, decoded_s: float, is_complete: bool, data_bytes: int
) -> bool:
    """Return whether a process with ordinary memory may have needed more.

    The log does not always tell: ffmpeg ignores some failed allocations, and then a stream is empty or ends early.

    Args:
        path: The file that it decoded.
        status: Its exit status, or minus the number of the signal that killed it.
        exit_signal: Number of a signal at which ffmpeg ended by itself; None if it received none.
        decoded_s: Duration of the decoded audio in seconds.
        is_complete: Whether no part of the audio seems to be missing.
        data_bytes: How much memory it used while it was decoding; 0 if it ended too soon to tell.
    """
    number = -status if status < 0 else exit_signal
    if number:
        return number in _CRASHES
    if status == NOT_STARTED:
        return False
    if decoded_s == 0:
        return has_accepted_signature(path)
    if status != 0:
        return True
    return not is_complete and not 0 < data_bytes <= DecoderMemory.ORDINARY.value // 2
