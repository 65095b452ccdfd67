"""Clips are as long and as loud as asked, begin where they should, and are made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from tests.harness.recordings import wav_bytes
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack_training.cli import app
from wholetrack_training.data.clips import Cutting, cut_folder

pytestmark = pytest.mark.torch


@pytest.fixture
def music(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    """Ten seconds that grow louder, a silent recording and no recording."""
    music = tmp_path / "music"
    (music / "rock").mkdir(parents=True)
    (music / "rock" / "song.wav").write_bytes(
        wav_bytes(tune * np.linspace(0.05, 0.5, len(tune), dtype=np.float32), 22050)
    )
    (music / "rock" / "silence.wav").write_bytes(wav_bytes(np.zeros(22050 * 10, dtype=np.float32), 22050))
    (music / "rock" / "notes.txt").write_text("no song")
    return music


def samples(decoder: FfmpegDecoder, clip: Path) -> NDArray[np.float32]:
    with decoder.open(clip, sample_rate=22050, max_duration_s=60) as decoding:
        return np.concatenate(list(decoding.blocks()))


def test_whole_clips_at_one_level(
    music: Path, tmp_path: Path, decoder: FfmpegDecoder, tune: NDArray[np.float32]
) -> None:
    clips = list(cut_folder(music, tmp_path / "clips", Cutting(seconds=3.0, level_db=-26.0), decoder.ffmpeg))
    assert [clip.name for clip in clips] == [f"song.wav.{number:03}.flac" for number in range(3)]
    for number, clip in enumerate(clips):
        heard = samples(decoder, clip)
        assert len(heard) == pytest.approx(3 * 22050, abs=1)
        assert 10 * np.log10(np.square(heard).mean()) == pytest.approx(-26, abs=0.1)
        original = tune[number * 3 * 22050 :][: len(heard)]
        assert np.corrcoef(heard, original)[0, 1] > 0.9


def test_no_peak_is_cut_and_few_clips_are_spread(music: Path, tmp_path: Path, decoder: FfmpegDecoder) -> None:
    cutting = Cutting(seconds=2.0, level_db=0.0, most=2)
    clips = list(cut_folder(music, tmp_path / "clips", cutting, decoder.ffmpeg))
    assert [clip.name for clip in clips] == ["song.wav.000.flac", "song.wav.002.flac"]
    for clip in clips:
        assert 20 * np.log10(np.abs(samples(decoder, clip)).max()) == pytest.approx(-1.0, abs=0.1)


def test_what_is_there_is_not_made_again(music: Path, tmp_path: Path) -> None:
    command = ["clips", str(music), str(tmp_path / "clips"), "--seconds", "5"]
    for _ in range(2):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert done.stdout == "2 clips\n"
        written = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").rglob("*.flac")}
    assert len(written) == 2
    (tmp_path / "clips" / "rock" / "song.wav.001.flac").unlink()
    (tmp_path / "clips" / "rock" / "song.wav.001.flac.unfinished").write_text("killed here")
    assert CliRunner().invoke(app, command).stdout == "2 clips\n"
    kept = tmp_path / "clips" / "rock" / "song.wav.000.flac"
    assert kept.stat().st_mtime_ns == written[kept]
    assert not list((tmp_path / "clips").rglob("*.unfinished"))
    (tmp_path / "in-the-way").mkdir()
    (tmp_path / "in-the-way" / "rock").write_text("a file where a folder should be")
    stopped = CliRunner().invoke(app, ["clips", str(music), str(tmp_path / "in-the-way"), "--seconds", "5"])
    assert stopped.exit_code == 1
    assert "cannot be written" in stopped.output
    empty = CliRunner().invoke(app, ["clips", str(tmp_path / "nothing"), str(tmp_path / "clips")])
    assert empty.exit_code == 1
    assert "holds no recording" in empty.output
