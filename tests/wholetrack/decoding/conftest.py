"""Decoders for every ffmpeg that the service may meet on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg

_EXECUTABLES = {"bundled": imageio_ffmpeg.get_ffmpeg_exe(), "PATH": shutil.which("ffmpeg")}


@pytest.fixture(scope="session", params=[name for name, path in _EXECUTABLES.items() if path])
def each_decoder(request: pytest.FixtureRequest) -> Iterator[FfmpegDecoder]:
    """The bundled ffmpeg, and the one on PATH if there is one. They differ in what they decode incompletely."""
    decoder = FfmpegDecoder(find_ffmpeg(Path(_EXECUTABLES[request.param])))
    yield decoder
    decoder.close()
