"""Measures how much address space an ffmpeg and its libraries occupy.

The limit on address space is the only one that bounds all memory of a compromised process, so it should be no larger
than necessary. How much the program itself needs depends on how ffmpeg was built.
"""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path

from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.decoding.limits import DecoderMemory, ffmpeg_limits
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.layers import Layer

_MIB = 1 << 20
# What is needed besides the executable: its libraries, and the memory that is in use before any file is opened.
_CANDIDATES_MIB = (32, 64, 96, 128, 192, 256, 384, 512, 768)


def program_bytes(ffmpeg: Ffmpeg, sandbox: Sandbox) -> int:
    """Return the address space that ffmpeg occupies before it opens a file, rounded up.

    ffmpeg is started with increasing limits until it works. If it never does, the largest is returned.
    """
    executable = ffmpeg.path.stat().st_size
    candidates = [executable + mib * _MIB for mib in _CANDIDATES_MIB]
    if Layer.LIMITS not in sandbox.layers:
        return candidates[-1]
    too_small = list(takewhile(lambda size: not _works(ffmpeg, sandbox, size), candidates[:-1]))
    return candidates[len(too_small)]


def _works(ffmpeg: Ffmpeg, sandbox: Sandbox, address_space_bytes: int) -> bool:
    """Return whether ffmpeg can print its version within this address space."""
    limits = ffmpeg_limits(
        0.0, DecoderMemory.ORDINARY, program_bytes=address_space_bytes - DecoderMemory.ORDINARY.value
    )
    with Path(os.devnull).open("rb") as nothing:
        process = sandbox.spawn(
            [str(ffmpeg.path), "-version"], input_file=nothing.fileno(), limits=limits, environment={"LC_ALL": "C"}
        )
    with process.stderr, process:
        process.stdout.read()
        return process.wait() == 0
