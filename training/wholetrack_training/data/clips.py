"""A data set of short clips cut from whole recordings, made like GTZAN: mono at 22,050 Hz, all at the same level."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import Ffmpeg
from wholetrack.errors import ServiceError

with warnings.catch_warnings():
    # On import, pydub warns if PATH has no ffmpeg. It is given one later.
    warnings.simplefilter("ignore", RuntimeWarning)
    from pydub import AudioSegment
from pydub.exceptions import CouldntEncodeError

from wholetrack_training.data.chunks import Samples, equal_chunks
from wholetrack_training.errors import DataError

_log = logging.getLogger(__name__)

# The rate of GTZAN. No system uses a higher one.
_SAMPLE_RATE = 22050
_MAX_RECORDING_S = 24 * 3600.0
_PEAK_DB = -1.0
_FADE_MS = 5


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """How recordings are cut into clips.

    Attributes:
        seconds: Length of every clip. A shorter remainder at the end of a recording is dropped.
        level_db: Root mean square of every clip in dB relative to full scale; lower if a peak would exceed -1 dB.
        max_clips: Clips per recording, spread evenly over it; None for all.
    """

    seconds: float = 30.0
    level_db: float = -20.0
    max_clips: int | None = None


def cut_folder(root: Path, to: Path, spec: ClipSpec, ffmpeg: Ffmpeg) -> Iterator[Path]:
    """Cut all recordings below ``root`` into clips ``<to>/<subfolder>/<file name>.<number>.flac``.

    Existing clips are kept, so an interrupted run can be repeated. Silent clips, and files that ffmpeg cannot read,
    are skipped.

    Args:
        root: A folder of recordings per genre.
        to: Folder for the clips; created if missing.
        spec: Length, level and number of the clips.
        ffmpeg: Decodes the recordings and encodes the clips.

    Yields:
        The path of every clip that exists now, in order.

    Raises:
        DataError: If a clip cannot be written.
    """
    AudioSegment.converter = str(ffmpeg.path)
    decoder = FfmpegDecoder(ffmpeg)
    for recording in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")):
        folder = to / recording.parent.relative_to(root)
        try:
            for number, samples in _chosen_chunks(recording, decoder, spec):
                path = folder / f"{recording.name}.{number:03}.flac"
                clip = _segment(samples)
                if not math.isfinite(clip.dBFS):
                    continue
                if not path.exists():
                    _write(clip, path, spec)
                yield path
        except (OSError, ServiceError) as error:
            _log.warning("Skipping the rest of %s: %s", recording, error)


def _chosen_chunks(recording: Path, decoder: FfmpegDecoder, spec: ClipSpec) -> Iterator[tuple[int, Samples]]:
    """Yield the number and the samples of every chosen clip; only one is in memory at a time."""
    length = round(spec.seconds * _SAMPLE_RATE)
    chosen = None
    if spec.max_clips is not None:
        n_clips = sum(1 for _ in _whole_chunks(recording, decoder, length))
        n_chosen = min(n_clips, spec.max_clips)
        chosen = {i * n_clips // n_chosen for i in range(n_chosen)}
    for number, chunk in enumerate(_whole_chunks(recording, decoder, length)):
        if chosen is None or number in chosen:
            yield number, chunk


def _whole_chunks(recording: Path, decoder: FfmpegDecoder, length: int) -> Iterator[Samples]:
    with decoder.open(recording, sample_rate=_SAMPLE_RATE, max_duration_s=_MAX_RECORDING_S) as decoding:
        for chunk in equal_chunks(decoding.blocks(), length):
            if len(chunk) == length:
                yield chunk
        decoding.summary()


def _segment(samples: Samples) -> AudioSegment:
    rounded = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return AudioSegment(rounded.tobytes(), sample_width=2, frame_rate=_SAMPLE_RATE, channels=1)


def _write(clip: AudioSegment, path: Path, spec: ClipSpec) -> None:
    gain = min(spec.level_db - clip.dBFS, _PEAK_DB - clip.max_dBFS)
    levelled = clip.apply_gain(gain).fade_in(_FADE_MS).fade_out(_FADE_MS)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with levelled.export(unfinished, format="flac"):
            unfinished.replace(path)
    except (OSError, CouldntEncodeError) as error:
        raise DataError(f"{path} cannot be written: {error}") from error
