"""Clips have the requested length and level, start at the right positions and are written only once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.harness.recordings import wav_bytes
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack_training.cli import app
from wholetrack_training.data.clips import ClipSpec, cut_folder


@pytest.fixture
def music(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    """Ten seconds of increasing level, a silent recording, and a file that is not a recording."""
    music = tmp_path / "music"
    (music / "rock").mkdir(parents=True)
    (music / "rock" / "song.wav").write_bytes(
        wav_bytes(tune * np.linspace(0.05, 0.5, len(tune), dtype=np.float32), 22050)
    )
    (music / "rock" / "silence.wav").write_bytes(wav_bytes(np.zeros(22050 * 10, dtype=np.float32), 22050))
    (music / "rock" / "notes.txt").write_text("not a song")
    return music


def samples(decoder: FfmpegDecoder, clip: Path) -> NDArray[np.float32]:
    with decoder.open(clip, sample_rate=22050, max_duration_s=60) as decoding:
        return np.concatenate(list(decoding.blocks()))


def test_clips_have_the_requested_length_and_level(
    music: Path, tmp_path: Path, decoder: FfmpegDecoder, tune: NDArray[np.float32]
) -> None:
    clips = list(cut_folder(music, tmp_path / "clips", ClipSpec(seconds=3.0, level_db=-26.0), decoder.ffmpeg))
    assert [clip.name for clip in clips] == [f"song.wav.{number:03}.flac" for number in range(3)]
    for number, clip in enumerate(clips):
        found = samples(decoder, clip)
        assert len(found) == pytest.approx(3 * 22050, abs=1)
        assert 10 * np.log10(np.square(found).mean()) == pytest.approx(-26, abs=0.1)
        original = tune[number * 3 * 22050 :][: len(found)]
        assert np.corrcoef(found, original)[0, 1] > 0.9


def test_peaks_do_not_clip_and_a_limited_number_of_clips_is_spread_evenly(
    music: Path, tmp_path: Path, decoder: FfmpegDecoder
) -> None:
    spec = ClipSpec(seconds=2.0, level_db=0.0, max_clips=2)
    clips = list(cut_folder(music, tmp_path / "clips", spec, decoder.ffmpeg))
    assert [clip.name for clip in clips] == ["song.wav.000.flac", "song.wav.002.flac"]
    for clip in clips:
        assert 20 * np.log10(np.abs(samples(decoder, clip)).max()) == pytest.approx(-1.0, abs=0.1)


def test_existing_clips_are_kept(music: Path, tmp_path: Path) -> None:
    command = ["clips", str(music), str(tmp_path / "clips"), "--seconds", "5"]
    for _ in range(2):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert done.stdout == "2 clips\n"
        written = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").rglob("*.flac")}
    assert len(written) == 2
    (tmp_path / "clips" / "rock" / "song.wav.001.flac").unlink()
    (tmp_path / "clips" / "rock" / "song.wav.001.flac.unfinished").write_text("left by a killed process")
    assert CliRunner().invoke(app, command).stdout == "2 clips\n"
    kept = tmp_path / "clips" / "rock" / "song.wav.000.flac"
    assert kept.stat().st_mtime_ns == written[kept]
    assert not list((tmp_path / "clips").rglob("*.unfinished"))


def test_clips_that_cannot_be_made_are_reported(music: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "rock").write_text("a file where a folder should be")
    failed = CliRunner().invoke(app, ["clips", str(music), str(tmp_path / "blocked"), "--seconds", "5"])
    assert failed.exit_code == 1
    assert "cannot be written" in failed.output
    empty = CliRunner().invoke(app, ["clips", str(tmp_path / "nothing"), str(tmp_path / "clips")])
    assert empty.exit_code == 1
    assert "has no recording of at least 30 s" in empty.output
