"""``wholetrack tag``: a dry run, writing, files that fail, undoing, and options that exclude each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import LOSSY, Recorder, wav_bytes
from wholetrack.tagging.audio_tags import AudioTags

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "wholetrack", "tag", *map(str, arguments)]
        return subprocess.run(
            program,
            cwd=tmp_path,
            env=os.environ | {"WHOLETRACK_DEVICE": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def library(tmp_path: Path, tune: NDArray[np.float32], recorder: Recorder) -> Path:
    """Four recordings without a genre, one with a genre, and one whose tags cannot be read."""
    folder = tmp_path / "music"
    folder.mkdir()
    wav = folder / "song.wav"
    wav.write_bytes(wav_bytes(tune[: 5 * 22050], 22050))
    segment = recorder.load(wav, "pcm_f32le")
    for kind in LOSSY[:3]:
        recorder.convert(segment, kind, folder / f"song.{kind.suffix}")
    recorder.run("-i", wav, "-metadata", "genre=Old", folder / "known.flac")
    (folder / "bad.mp3").write_bytes(b"no audio")
    return folder


def genres(library: Path) -> dict[str, list[str]]:
    return {path.name: AudioTags(path).genres() for path in sorted(library.iterdir()) if path.name != "bad.mp3"}


def test_nothing_changes_without_write_and_everything_is_undone(run: Run, library: Path, tmp_path: Path) -> None:
    before = genres(library)
    contents = {path: path.read_bytes() for path in library.iterdir()}
    options = ("--min-confidence", "0", "--genres", "beets", "--model", "hilsdorf-crnn")
    dry = run(library, *options)
    assert dry.returncode == 1
    assert "bad.mp3: not_tagged: " in dry.stderr
    assert "Traceback" not in dry.stderr
    *changes, changed, skipped, failed = dry.stdout.splitlines()
    assert changed == "4 would be changed (nothing is written without --write)"
    assert (skipped, failed) == ("1 skipped: has a genre", "1 failed")
    assert len(changes) == 4
    assert all(": none -> " in line for line in changes)
    assert {path: path.read_bytes() for path in library.iterdir()} == contents
    assert not (tmp_path / "wholetrack-tag.jsonl").exists()

    written = run(library, *options, "--write")
    assert written.stdout.splitlines()[:-3] == changes
    after = genres(library)
    assert after["known.flac"] == ["Old"]
    assert all(len(found) == 1 and found[0] != found[0].lower() for found in after.values())

    undone = run("--undo", "wholetrack-tag.jsonl")
    assert (undone.returncode, undone.stdout) == (0, "4 undone\n")
    assert genres(library) == before


@pytest.mark.data
def test_real_music_gets_its_genre(run: Run, music: Path, tmp_path: Path, recorder: Recorder) -> None:
    song = tmp_path / "song.mp3"
    recorder.run("-i", music / "audio/full/lets-go-fishin.ogg", "-t", "60", "-map_metadata", "-1", song)
    done = run(song, "--write", "--min-confidence", "0.2", "--max-genres", "3", "--min-share", "0.1")
    assert done.returncode == 0, done.stderr
    assert f"{song}: none -> " in done.stdout
    found = AudioTags(song).genres()
    assert 1 <= len(found) <= 3
    again = run(song, "--write", "--append", "--min-confidence", "0.2", "--max-genres", "3", "--min-share", "0.1")
    assert again.stdout == "0 changed\n1 skipped: has this genre\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--replace", "--append", "x.mp3"), "--replace and --append exclude each other"),
        ((), "name recordings or folders"),
        (("none.mp3",), "none.mp3 is neither a file nor a folder"),
        (("--genres", "none.toml", "x.mp3"), "none.toml cannot be read"),
        (("--undo", "none.jsonl"), "cannot read none.jsonl"),
    ],
)
def test_other_arguments_end_with_a_sentence(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_journal_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"path": 3}\n')
    done = run("--undo", "other.jsonl")
    assert (done.returncode, done.stderr) == (1, "wholetrack: other.jsonl is not a journal of wholetrack tag\n")
