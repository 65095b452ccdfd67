"""What one fold of the training of wholetrack-crnn 2 may learn from: recordings and spectrograms of GTZAN.

A fold that is judged takes no part in any form, not even with what a tagger says about it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wholetrack_training.data.audio_pool import AudioPool
from wholetrack_training.data.tracks import Track, TrackSet
from wholetrack_training.errors import DataError

ALL = 0
"""Number of the fold that leaves nothing out: the published network."""

_UNSURE = 1e-3


@dataclass(frozen=True, slots=True)
class FoldData:
    """The data of one fold.

    Attributes:
        audio: Recordings.
        audio_genres: Index of the genre of each recording, ``[n_recordings]``.
        frames: Spectrograms in dB, ``[n_tracks, n_frames, n_mels]``.
        genres: Index of the genre of each spectrogram, ``[n_tracks]``.
        tags: Logits that musicnn gives to the windows that begin at each second, ``[n_tracks, n_windows, n_tags]``; NaN
            where it was not asked.
    """

    audio: AudioPool
    audio_genres: Tensor
    frames: Tensor
    genres: Tensor
    tags: Tensor


def fold_data(fold: int, tracks: TrackSet, audio: AudioPool, tags: Mapping[str, NDArray[np.float32]]) -> FoldData:
    """Return what a fold may learn from.

    Args:
        fold: The fold that is left out, counted from 1; :data:`ALL` for none.
        tracks: All spectrograms. Tracks without a fold are used only if nothing is left out.
        audio: All recordings; their names are those of the tracks, with any suffix.
        tags: Probabilities that musicnn gives to the windows of tracks, ``[n_windows, n_tags]`` by name.

    Raises:
        DataError: If a recording is not one of the tracks, or nothing is left to learn from.
    """
    left_out = {track.name for track in tracks.tracks if track.fold == fold}
    allowed = {track.name: track for track in tracks.tracks if _may_be_used(track, fold, left_out)}
    known = {track.name for track in tracks.tracks}
    stems = [Path(name).stem for name in audio.names]
    if unknown := [stem for stem in stems if stem not in known]:
        raise DataError(f"{len(unknown)} recordings are not among the tracks, such as {unknown[0]}")
    chosen = [i for i, stem in enumerate(stems) if stem in allowed]
    if not chosen:
        raise DataError(f"without fold {fold}, no recording is left to learn from")
    rows = [*allowed.values()]
    shortest = min(len(track.frames) for track in rows)
    longest = max(len(values) for values in tags.values())
    n_tags = next(iter(tags.values())).shape[1]
    logits = np.full((len(rows), longest, n_tags), np.nan, dtype=np.float32)
    for row, track in enumerate(rows):
        if track.name in tags:
            probability = np.clip(tags[track.name].astype(np.float32), _UNSURE, 1 - _UNSURE)
            logits[row, : len(probability)] = np.log(probability / (1 - probability))
    return FoldData(
        audio=audio.selected(chosen),
        audio_genres=torch.tensor([allowed[stems[i]].genre for i in chosen]),
        frames=torch.from_numpy(np.stack([track.frames[:shortest] for track in rows])),
        genres=torch.tensor([track.genre for track in rows]),
        tags=torch.from_numpy(logits),
    )


def read_tags(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read the probabilities that musicnn gives to the windows of tracks, by name of the track.

    Raises:
        DataError: If the file is missing or damaged.
    """
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} does not hold tags of tracks: {error}") from error


def _may_be_used(track: Track, fold: int, left_out: set[str]) -> bool:
    if fold == ALL:
        return True
    return track.fold is not None and track.fold != fold and track.duplicate_of not in left_out
