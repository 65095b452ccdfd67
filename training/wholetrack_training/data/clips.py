"""A data set of short clips out of whole recordings, as GTZAN was made: cut, mono at 22,050 Hz, at one level."""

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
    # It looks for ffmpeg on PATH before it can be told of ours.
    warnings.simplefilter("ignore", RuntimeWarning)
    from pydub import AudioSegment
from pydub.exceptions import CouldntEncodeError

from wholetrack_training.data.audio_augmentation import Samples, pieces
from wholetrack_training.data.tracks import DataError

_log = logging.getLogger(__name__)

# GTZAN's own, and all that any of the systems hears.
_RATE = 22050
_LONGEST_S = 24 * 3600.0
_PEAK_DB = -1.0
_FADE_MS = 5


@dataclass(frozen=True, slots=True)
class Cutting:
    """How recordings are cut.

    Attributes:
        seconds: of every clip; what is left at the end of a recording is shorter and left out.
        level_db: root mean square of every clip relative to full scale, lower where a peak would exceed -1 dB.
        most: clips of one recording, spread evenly from its beginning; all if None.
    """

    seconds: float = 30.0
    level_db: float = -20.0
    most: int | None = None


def cut_folder(root: Path, to: Path, cutting: Cutting, ffmpeg: Ffmpeg) -> Iterator[Path]:
    """Cut all recordings below ``root`` into ``<to>/<their folder>/<their name>.<number>.flac``.

    Clips that are there already are not made again, so that it can be interrupted at any moment. A file that ffmpeg
    cannot read, and silence, give no clips.

    Args:
        root: a folder of recordings per genre.
        to: folder of the clips, made if need be.
        cutting: how.
        ffmpeg: reads the recordings and writes the clips.

    Yields:
        Every clip that is there now, in order.

    Raises:
        DataError: if a clip cannot be written.
    """
    AudioSegment.converter = str(ffmpeg.path)
    decoder = FfmpegDecoder(ffmpeg)
    for recording in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")):
        folder = to / recording.parent.relative_to(root)
        try:
            for number, samples in _cuts(recording, decoder, cutting):
                path = folder / f"{recording.name}.{number:03}.flac"
                clip = _segment(samples)
                if not math.isfinite(clip.dBFS):
                    continue
                if not path.exists():
                    _write(clip, path, cutting)
                yield path
        except (OSError, ServiceError) as error:
            _log.warning("%s gives no more clips: %s", recording, error)


def _cuts(recording: Path, decoder: FfmpegDecoder, cutting: Cutting) -> Iterator[tuple[int, Samples]]:
    """The chosen clips with their numbers, one at a time in memory."""
    length = round(cutting.seconds * _RATE)
    chosen = None
    if cutting.most is not None:
        n_clips = sum(1 for _ in _whole_pieces(recording, decoder, length))
        n_chosen = min(n_clips, cutting.most)
        chosen = {i * n_clips // n_chosen for i in range(n_chosen)}
    for number, piece in enumerate(_whole_pieces(recording, decoder, length)):
        if chosen is None or number in chosen:
            yield number, piece


def _whole_pieces(recording: Path, decoder: FfmpegDecoder, length: int) -> Iterator[Samples]:
    with decoder.open(recording, sample_rate=_RATE, max_duration_s=_LONGEST_S) as decoding:
        for piece in pieces(decoding.blocks(), length):
            if len(piece) == length:
                yield piece
        decoding.summary()


def _segment(samples: Samples) -> AudioSegment:
    rounded = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return AudioSegment(rounded.tobytes(), sample_width=2, frame_rate=_RATE, channels=1)


def _write(clip: AudioSegment, path: Path, cutting: Cutting) -> None:
    gain = min(cutting.level_db - clip.dBFS, _PEAK_DB - clip.max_dBFS)
    levelled = clip.apply_gain(gain).fade_in(_FADE_MS).fade_out(_FADE_MS)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with levelled.export(unfinished, format="flac"):
            unfinished.replace(path)
    except (OSError, CouldntEncodeError) as error:
        raise DataError(f"{path} cannot be written: {error}") from error
