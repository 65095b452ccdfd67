"""Toy tracks whose genre is the half of the bands that is loud."""

from __future__ import annotations

from typing import Any

import numpy as np

from wholetrack_training.data.tracks import Track, TrackSet


def toy_track(name: str, genre: int, seed: int, **fields: Any) -> Track:
    """Return thirty seconds of noise that is louder in the lower (genre 0) or the upper half of the bands."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(-60, 5, (390, 128))
    frames[:, genre * 64 : genre * 64 + 64] += 30 + 10 * np.sin(np.arange(390)[:, None] / 3 + seed)
    return Track(name=name, genre=genre, frames=frames.astype(np.float32), **fields)


def toy_set(per_genre: int = 24) -> TrackSet:
    """Return tracks of two genres, four tracks per artist, in three folds."""
    tracks = [
        toy_track(f"{label}.{i:05}", genre, 100 * genre + i, artist=f"{label}-{i // 4}", fold=i % 12 // 4 + 1)
        for genre, label in enumerate(("low", "high"))
        for i in range(per_genre)
    ]
    return TrackSet(("low", "high"), tuple(tracks))
