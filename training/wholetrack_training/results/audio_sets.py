"""The recordings that models are judged by: excerpts and clips of GTZAN, music beyond it, free music, and no music."""

from __future__ import annotations

import csv
import shutil
import subprocess
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack_training.errors import DataError
from wholetrack_training.results.beyond import read_beyond
from wholetrack_training.systems.outliers import KINDS, outlier
from wholetrack_training.systems.speech import speak

WINDOWS, CLIPS, BEYOND, FREE, NO_MUSIC = "gtzan-short", "gtzan", "beyond", "free-music", "no-music"
"""Names of the sets. Each recording of the first is a single window."""

SPEECH = "speech"
"""The group of the recordings of speech in the last set."""

# Recordings of these languages are in no training set (see systems/speech.py).
_SPEECH_LANGUAGES = ("en-gb", "en-us", "de", "fr-fr", "es")
_PER_KIND, _SPOKEN, _SECONDS = 20, 40, 6.0
# Not the seed of the sounds that networks are trained with.
_SEED = 20_261_127
_EXTENSIONS = {".flac", ".mp3", ".ogg", ".opus", ".wav", ".m4a", ".oga"}


@dataclass(frozen=True, slots=True)
class JudgedRecording:
    """A recording, and what is known about it.

    Attributes:
        name: File name, or another name that is unique within the set.
        path: The file.
        group: GTZAN's genre, the group of a recording beyond GTZAN, the kind of a sound; empty for free music.
        fold: Artist-filtered fold; 0 for recordings that belong to none, which the published network classifies.
        listeners_agree: Whether listeners named the group most often. Only for recordings beyond GTZAN.
    """

    name: str
    path: Path
    group: str
    fold: int = 0
    listeners_agree: bool = False


def gtzan_recordings(folder: Path, table: Path) -> list[JudgedRecording]:
    """Return the recordings of a folder of GTZAN that have a fold.

    Args:
        folder: Contains ``<genre>/<track>.flac``.
        table: CSV with the columns ``track, genre, fold``.

    Raises:
        DataError: If there are none, or the table cannot be read.
    """
    try:
        with table.open(newline="") as text:
            rows = {row["track"]: row for row in csv.DictReader(text)}
        found = [
            JudgedRecording(path.stem, path, rows[path.stem]["genre"], int(rows[path.stem]["fold"]))
            for path in sorted(folder.glob("*/*.flac"))
            if path.stem in rows and rows[path.stem]["fold"]
        ]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{table} is not a table of tracks: {error}") from error
    if not found:
        raise DataError(f"{folder} has no recording with a fold in {table}")
    return found


def beyond_recordings(folder: Path) -> list[JudgedRecording]:
    """Return the recordings beyond GTZAN, which the table in their folder lists.

    Raises:
        DataError: If the table cannot be read.
    """
    return [
        JudgedRecording(row.file, folder / row.file, row.group, listeners_agree=row.listeners_agree)
        for row in read_beyond(folder / "tracks.csv")
    ]


def free_recordings(folder: Path, to: Path, ffmpeg: Path, *, count: int, seconds: float) -> Iterator[JudgedRecording]:
    """Cut excerpts from recordings that are evenly spaced among those of a folder.

    Args:
        folder: A folder of recordings, searched recursively.
        to: Folder for the excerpts.
        ffmpeg: Executable that cuts them.
        count: Number of recordings, at most.
        seconds: Length of an excerpt, which begins 20 s after the start; shorter recordings are left out.

    Raises:
        DataError: If there are no recordings.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _EXTENSIONS)
    if not files:
        raise DataError(f"{folder} contains no recordings")
    chosen = sorted({int(i) for i in np.linspace(0, len(files) - 1, count)})
    for i in chosen:
        excerpt = to / f"{i}.flac"
        # Past most introductions, and still inside short pieces.
        command = [str(ffmpeg), "-v", "error", "-nostdin", "-y", "-ss", "20", "-t", str(seconds), "-i", str(files[i])]
        done = subprocess.run([*command, "-map", "0:a:0", str(excerpt)], check=False, capture_output=True)
        if done.returncode == 0 and excerpt.stat().st_size > 1000:
            yield JudgedRecording(str(files[i].relative_to(folder)), excerpt, "")


def no_music(to: Path, *, sample_rate: int) -> list[JudgedRecording]:
    """Synthesise sounds that are not music: those of :mod:`..systems.outliers` with another seed, and speech.

    Args:
        to: Folder for the sounds.
        sample_rate: Sample rate of the sounds in Hz.

    Raises:
        DataError: If espeak-ng is not installed.
    """
    if shutil.which("espeak-ng") is None:
        raise DataError("espeak-ng, which speaks the sentences that a model must not take for music, is not installed")
    rng = np.random.default_rng(_SEED)
    found = []
    for kind in KINDS:
        for i in range(_PER_KIND):
            name = f"{kind.replace(' ', '-')}-{i}"
            path = to / f"{name}.wav"
            _write_wav(path, outlier(kind, rng, sample_rate=sample_rate, seconds=_SECONDS), sample_rate)
            found.append(JudgedRecording(name, path, kind))
    for i in range(_SPOKEN):
        path = to / f"speech-{i}.wav"
        speak(rng, path, languages=_SPEECH_LANGUAGES)
        found.append(JudgedRecording(path.stem, path, SPEECH))
    return found


def _write_wav(path: Path, samples: NDArray[np.float32], rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
