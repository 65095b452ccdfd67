"""A toy world with two genres, low and high, that a network learns in seconds."""

from __future__ import annotations

import numpy as np
import pytest

from wholetrack_training.data.tracks import Track, TrackSet


def toy_track(name: str, genre: int, seed: int, **facts: object) -> Track:
    """Thirty seconds of noise, in the lower or the upper half of the bands."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(-60, 5, (390, 128))
    frames[:, genre * 64 : genre * 64 + 64] += 30 + 10 * np.sin(np.arange(390)[:, None] / 3 + seed)
    return Track(name=name, genre=genre, frames=frames.astype(np.float32), **facts)  # type: ignore[arg-type]


def toy_set() -> TrackSet:
    """Twenty-four tracks of each genre, by six artists, in three folds."""
    tracks = [
        toy_track(f"{label}.{i:05}", genre, 100 * genre + i, artist=f"{label}-{i // 4}", fold=i % 12 // 4 + 1)
        for genre, label in enumerate(("low", "high"))
        for i in range(24)
    ]
    return TrackSet(("low", "high"), tuple(tracks))


@pytest.fixture(scope="session")
def toys() -> TrackSet:
    return toy_set()
