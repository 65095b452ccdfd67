"""Resource limits of one ffmpeg process."""

from __future__ import annotations

from wholetrack.sandbox.limits import Limits

# ffmpeg allocates 10 MiB, or 40 MiB including the stacks of its threads. The index of a ten-hour recording takes 50 MiB
# more, and one crafted to exhaust memory takes 600 MiB, in a file of one megabyte.
_DATA_BYTES = 256 << 20
# Includes the executable, which can be 170 MB large.
_ADDRESS_SPACE_BYTES = 1 << 30
_OPEN_FILES = 32

# Even a slow CPU decodes a recording in a few hundredths of its duration, but a file can make ffmpeg run forever.
# Therefore the CPU time that ffmpeg may use grows with the audio that it has decoded.
_CPU_S = 30.0
_CPU_S_PER_SECOND = 1 / 20


def allowed_cpu_s(decoded_s: float) -> float:
    """Return the total CPU time in seconds that ffmpeg may use to decode ``decoded_s`` seconds of audio."""
    return _CPU_S + _CPU_S_PER_SECOND * decoded_s


def ffmpeg_limits(max_duration_s: float) -> Limits:
    """Return the limits of a process that decodes up to ``max_duration_s`` seconds of audio."""
    return Limits(
        cpu_s=allowed_cpu_s(0.0),
        max_cpu_s=allowed_cpu_s(max_duration_s),
        data_bytes=_DATA_BYTES,
        address_space_bytes=_ADDRESS_SPACE_BYTES,
        open_files=_OPEN_FILES,
    )
