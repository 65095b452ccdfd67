"""A data set of short clips out of whole recordings, as GTZAN was made: cut, brought to one level, kept as FLAC."""

from __future__ import annotations

import math
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.audio.ffmpeg import Ffmpeg

with warnings.catch_warnings():
    # It looks for ffmpeg on PATH before it can be told of ours.
    warnings.simplefilter("ignore", RuntimeWarning)
    from pydub import AudioSegment
from pydub.exceptions import CouldntEncodeError

from training.tracks import DataError

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
    for recording in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")):
        folder = to / recording.parent.relative_to(root)
        with tempfile.TemporaryDirectory() as temporary:
            whole = _opened(recording, Path(temporary) / "whole.wav", ffmpeg)
            if whole is None:
                continue
            for number, clip in _clips(whole, cutting):
                path = folder / f"{recording.name}.{number:03}.flac"
                if not path.exists():
                    _write(clip, path, cutting)
                yield path


def _opened(recording: Path, wav: Path, ffmpeg: Ffmpeg) -> AudioSegment | None:
    command = [str(ffmpeg.path), "-v", "error", "-nostdin", "-i", str(recording), "-map", "0:a:0", "-c:a", "pcm_s16le"]
    done = subprocess.run([*command, str(wav)], check=False, capture_output=True)
    if done.returncode != 0:
        return None
    with wav.open("rb") as file:
        return AudioSegment.from_wav(file)


def _clips(whole: AudioSegment, cutting: Cutting) -> Iterator[tuple[int, AudioSegment]]:
    length_ms = round(cutting.seconds * 1000)
    n_clips = len(whole) // length_ms
    n_chosen = min(n_clips, cutting.most or n_clips)
    for number in (i * n_clips // n_chosen for i in range(n_chosen)):
        clip = whole[number * length_ms : (number + 1) * length_ms]
        if math.isfinite(clip.dBFS):
            yield number, clip


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
