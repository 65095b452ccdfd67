"""Recordings that the clients of a campaign post."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from tests.harness.recordings import wav_bytes
from wholetrack.decoding.ffmpeg import find_ffmpeg

_RATE_HZ = 22050


def make_recordings(folder: Path) -> dict[str, bytes]:
    """Return recordings of 4 to 40 seconds as wav, flac, mp3 and ogg, by suffix.

    Args:
        folder: Folder for temporary files.
    """
    rng = np.random.default_rng(1)
    recordings = {}
    for seconds, suffix in ((4, "wav"), (9, "flac"), (20, "mp3"), (40, "ogg")):
        time = np.arange(seconds * _RATE_HZ) / _RATE_HZ
        tune = 0.3 * np.sin(2 * np.pi * np.cumsum(220 + 200 * np.sin(time)) / _RATE_HZ)
        source, target = folder / f"{seconds}-source.wav", folder / f"{seconds}.{suffix}"
        source.write_bytes(wav_bytes((tune + 0.05 * rng.standard_normal(len(tune))).astype(np.float32), _RATE_HZ))
        subprocess.run([find_ffmpeg().path, "-v", "error", "-nostdin", "-i", source, target], check=True)
        recordings[suffix] = target.read_bytes()
    return recordings


def make_noise(seconds: int) -> bytes:
    """Return a WAV file with noise."""
    rng = np.random.default_rng(0)
    return wav_bytes((0.1 * rng.standard_normal(seconds * _RATE_HZ)).astype(np.float32), _RATE_HZ)
