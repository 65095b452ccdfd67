"""Check at start-up that ffmpeg decodes correctly in the sandbox.

An ffmpeg can lack a filter or a format, or the sandbox can deny it a library that it needs.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.decoding.plan import DecodeAgainError, DecodingPlan
from wholetrack.errors import ServiceError, StartupError

_RATE = 16000
_TOLERANCE = 1e-4
# Near its ends, the output depends on what the resampler assumes beyond the ends of the recording.
_INNER = slice(200, -200)


def self_test(decoder: FfmpegDecoder, temp_dir: Path | None = None) -> None:
    """Decode a known tone and compare the samples.

    Args:
        decoder: The decoder.
        temp_dir: Folder for the file with the tone; None for that of the system.

    Raises:
        StartupError: If decoding fails or the samples differ.
    """
    tone = np.sin(np.arange(_RATE) / 20) / 2
    wav = _stereo_wav(left=tone, right=tone / 2)
    # The mean of the channels, at half the sample rate.
    expected = tone[::2] * 3 / 4
    for exact in False, True:
        plan = DecodingPlan(DecoderMemory.LARGE, exact=exact)
        samples = _decode(decoder, wav, plan, temp_dir)
        if samples.shape != expected.shape or not np.allclose(samples[_INNER], expected[_INNER], atol=_TOLERANCE):
            raise StartupError(f"{decoder.ffmpeg.path} does not decode a known WAV correctly")


def _decode(decoder: FfmpegDecoder, wav: bytes, plan: DecodingPlan, temp_dir: Path | None) -> NDArray[np.float32]:
    """Decode a WAV to half its sample rate."""
    with tempfile.NamedTemporaryFile(dir=temp_dir) as file:
        file.write(wav)
        file.flush()
        try:
            with decoder.open(Path(file.name), sample_rate=_RATE // 2, max_duration_s=10, plan=plan) as decoding:
                samples = np.concatenate([np.zeros(0, dtype=np.float32), *decoding.blocks()])
                decoding.summary()
        except (ServiceError, DecodeAgainError, OSError) as error:
            layers = ", ".join(sorted(decoder.sandbox.layers)) or "none"
            reason = str(error).rstrip(".")
            raise StartupError(
                f"{decoder.ffmpeg.path} cannot decode a WAV (sandbox layers: {layers}): {reason}. It needs libsoxr "
                "and the filter aphasemeter. If it is a script, configure the executable that it starts. To find out "
                "whether the sandbox is the cause, try WHOLETRACK_SANDBOX=off."
            ) from error
    return samples


def _stereo_wav(*, left: NDArray[np.float64], right: NDArray[np.float64]) -> bytes:
    """Return a WAV of 32-bit float samples."""
    data = np.stack((left, right), axis=1).astype("<f4").tobytes()
    fmt = struct.pack("<HHIIHH", 3, 2, _RATE, _RATE * 8, 8, 32)
    chunks = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks
