"""Resource limits of one ffmpeg process."""

from __future__ import annotations

from enum import Enum

from wholetrack.sandbox.limits import Limits

_MIB = 1 << 20


class DecoderMemory(Enum):
    """How much memory one ffmpeg process may use: a limit on its heap, stacks and anonymous mappings.

    ffmpeg 9 needs 25 MiB for every format, including stacks of 1 MiB. The index of an m4a adds 7 MiB for each hour, and
    one that is crafted to exhaust memory 600 MiB, in a file of one megabyte. A picture in a tag adds its size.

    Attributes:
        ORDINARY: Enough for nearly all files.
        LARGE: For the others.
    """

    ORDINARY = 64 * _MIB
    LARGE = 256 * _MIB


# ffmpeg has five threads, whose stacks count as data. By default each of them has 8 MiB, of which little is used.
_STACK_BYTES = 1 * _MIB
_OPEN_FILES = 32

# Even a slow CPU decodes a recording in a few hundredths of its duration, but a file can make ffmpeg run forever.
# Therefore the CPU time that ffmpeg may use grows with the audio that it has decoded.
_CPU_S = 30.0
_CPU_S_PER_SECOND = 1 / 20


def allowed_cpu_s(decoded_s: float) -> float:
    """Return the total CPU time in seconds that ffmpeg may use to decode ``decoded_s`` seconds of audio."""
    return _CPU_S + _CPU_S_PER_SECOND * decoded_s


def ffmpeg_limits(max_duration_s: float, memory: DecoderMemory, *, program_bytes: int) -> Limits:
    """Return the limits of a process that decodes up to ``max_duration_s`` seconds of audio.

    Args:
        max_duration_s: Limit on the duration in seconds.
        memory: How much memory it may use.
        program_bytes: Address space of the executable and its libraries.
    """
    return Limits(
        cpu_s=allowed_cpu_s(0.0),
        max_cpu_s=allowed_cpu_s(max_duration_s),
        data_bytes=memory.value,
        address_space_bytes=memory.value + program_bytes,
        stack_bytes=_STACK_BYTES,
        open_files=_OPEN_FILES,
    )
