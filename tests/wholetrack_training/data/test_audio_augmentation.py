"""Augmented copies of recordings, and the chunks that they are made from."""

from __future__ import annotations

import numpy as np
import pytest

from wholetrack_training.data.audio_augmentation import VERSIONS
from wholetrack_training.data.chunks import equal_chunks


@pytest.mark.parametrize("sizes", [(10,), (3, 3, 3, 1), (25, 1, 9), (5, 5), ()])
def test_chunks_have_one_length_regardless_of_the_block_sizes(sizes: tuple[int, ...]) -> None:
    sound = np.arange(sum(sizes), dtype=np.float32)
    chunks = list(equal_chunks(np.split(sound, np.cumsum(sizes)[:-1]) if sizes else [], 4))
    assert [len(chunk) for chunk in chunks[:-1]] == [4] * (len(chunks) - 1)
    assert not chunks or 0 < len(chunks[-1]) <= 4
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *chunks]), sound)


@pytest.mark.parametrize("name", list(VERSIONS))
def test_an_augmented_copy_of_a_tone(name: str) -> None:
    time = np.arange(22050 * 5) / 22050
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    changed = VERSIONS[name](tone, 22050)
    assert changed.shape == tone.shape
    assert np.array_equal(changed, VERSIONS[name](tone, 22050))
    spectrum = np.abs(np.fft.rfft(changed[: 22050 * 4]))
    expected = 440 * 2 ** (1 / 12) if name == "a semitone up" else 440.0
    assert spectrum.argmax() / 4 == pytest.approx(expected, abs=1.0)
    if name == "with white noise":
        assert 10 * np.log10(np.square(changed - tone).mean() / np.square(tone).mean()) == pytest.approx(-20, abs=0.1)
