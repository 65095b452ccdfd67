"""Classifies all sets of recordings with the networks of one model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.inference.bundle import Bundle
from wholetrack_training.results.audio_sets import (
    BEYOND,
    CLIPS,
    FREE,
    NO_MUSIC,
    WINDOWS,
    JudgedRecording,
    beyond_recordings,
    free_recordings,
    gtzan_recordings,
    no_music,
)
from wholetrack_training.results.domain import DOMAIN_TAGS
from wholetrack_training.results.judged_files import Judged
from wholetrack_training.results.judging import JudgedPipeline
from wholetrack_training.results.records import today

_log = logging.getLogger(__name__)

_FREE_RECORDINGS, _FREE_SECONDS = 120, 30.0


@dataclass(frozen=True, slots=True)
class AudioFolders:
    """Where the recordings are.

    Attributes:
        audio: Folder with ``gtzan-short``, ``gtzan`` and ``beyond``.
        table: Table of GTZAN's tracks with their folds.
        free_music: Folder of free music; None to leave it out.
    """

    audio: Path
    table: Path
    free_music: Path | None


def judge_model(bundles: Mapping[int, Bundle], folders: AudioFolders, *, label: str) -> Judged:
    """Classify all recordings.

    Args:
        bundles: The network of each fold, and under 0 the one that was trained on all data.
        folders: Where the recordings are.
        label: Label of the record.

    Raises:
        DataError: If recordings are missing, or espeak-ng is.
    """
    sets = {}
    card = bundles[0].card
    with JudgedPipeline.opened(bundles) as pipeline, tempfile.TemporaryDirectory() as folder:
        for name, recordings in _sets(folders, Path(folder), sample_rate=card.audio.sample_rate).items():
            _log.info("%s: %d recordings", name, len(recordings))
            sets[name] = pipeline.classify(recordings, window_tags=DOMAIN_TAGS)
        tags = pipeline.tags
    return Judged(
        label=label,
        date=today(),
        labels=card.labels,
        tags=tags,
        window_tags=tuple(tag for tag in tags if tag in DOMAIN_TAGS),
        sets=sets,
        least_peak=card.domain.least_peak if card.domain else None,
    )


def _sets(folders: AudioFolders, temporary: Path, *, sample_rate: int) -> dict[str, list[JudgedRecording]]:
    sets = {
        WINDOWS: gtzan_recordings(folders.audio / WINDOWS, folders.table),
        CLIPS: gtzan_recordings(folders.audio / CLIPS, folders.table),
        BEYOND: beyond_recordings(folders.audio / BEYOND),
        NO_MUSIC: no_music(temporary, sample_rate=sample_rate),
    }
    if folders.free_music:
        excerpts = free_recordings(
            folders.free_music, temporary, find_ffmpeg().path, count=_FREE_RECORDINGS, seconds=_FREE_SECONDS
        )
        sets[FREE] = list(excerpts)
    return sets
