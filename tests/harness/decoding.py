"""Decode whole files, or find out why they cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wholetrack.decoding.decoder import DecodedAudio, FfmpegDecoder
from wholetrack.decoding.plan import QUICK, DecodeAgainError, DecodingPlan
from wholetrack.errors import ErrorKind, ServiceError

RATE = 22050


def decode(
    decoder: FfmpegDecoder, path: Path, limit_s: float = 60.0, *, plan: DecodingPlan = QUICK
) -> tuple[NDArray[np.float32], DecodedAudio]:
    """Decode a file as the pipeline does: quickly, and again if that is not enough.

    Returns:
        The samples at 22,050 Hz, ``[n_samples]``, and the description of the file.
    """
    try:
        with decoder.open(path, sample_rate=RATE, max_duration_s=limit_s, plan=plan) as decoding:
            blocks = list(decoding.blocks())
            summary = decoding.summary()
    except DecodeAgainError as again:
        return decode(decoder, path, limit_s, plan=again.plan)
    return np.concatenate(blocks), summary


def error_kind(decoder: FfmpegDecoder, path: Path, limit_s: float = 60.0) -> ErrorKind:
    """Return the kind of error for a file that cannot be decoded."""
    with pytest.raises(ServiceError) as caught:
        decode(decoder, path, limit_s)
    assert str(path) not in caught.value.detail
    return caught.value.kind
