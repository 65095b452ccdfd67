"""Pools of recordings: what is decoded, what is left out, and damaged files."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.harness.recordings import wav_bytes
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack_training.data.audio_pool import POOL_RATE, AudioPool, collect, read_pool
from wholetrack_training.errors import DataError


def tone(seconds: float, hz: float = 440.0) -> bytes:
    at = np.arange(round(seconds * 22050)) / 22050
    return wav_bytes((0.5 * np.sin(2 * np.pi * hz * at)).astype(np.float32), 22050)


@pytest.fixture
def pool(tmp_path: Path) -> AudioPool:
    files = []
    for name, content in (("a.wav", tone(5)), ("b.wav", tone(2)), ("c.wav", tone(0.5)), ("d.wav", b"no audio")):
        (tmp_path / name).write_bytes(content)
        files.append((name, tmp_path / name))
    with closing(FfmpegDecoder(find_ffmpeg())) as decoder:
        return collect(files, tmp_path / "pool", decoder, max_s=3.0)


def test_recordings_are_cut_and_those_that_cannot_be_used_are_left_out(pool: AudioPool) -> None:
    assert pool.names == ("a.wav", "b.wav")
    assert np.diff(pool.offsets).tolist() == [3 * POOL_RATE, 2 * POOL_RATE]
    assert np.abs(pool.samples).max() == pytest.approx(0.5 * 32767, rel=0.01)


def test_a_pool_is_read_as_it_was_written(pool: AudioPool, tmp_path: Path) -> None:
    read = read_pool(tmp_path / "pool")
    assert read.names == pool.names
    np.testing.assert_array_equal(read.samples, pool.samples)
    second = read.selected([1])
    assert second.names == ("b.wav",)
    np.testing.assert_array_equal(second.samples, pool.samples[3 * POOL_RATE :])


def test_damaged_pools_are_refused(pool: AudioPool, tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", pool.samples[:-1])
    with pytest.raises(DataError, match="its index does not match its samples"):
        read_pool(tmp_path / "pool")
    (tmp_path / "pool.npz").write_bytes(b"")
    with pytest.raises(DataError, match="is not a pool of recordings"):
        read_pool(tmp_path / "pool")
