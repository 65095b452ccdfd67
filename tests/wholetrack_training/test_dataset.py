"""A folder of recordings per genre becomes tracks, whatever lies in it and however often the work is interrupted."""

from __future__ import annotations

import csv
import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.paths import PROJECT
from tests.harness.recordings import LOSSLESS, LOSSY, Recorder, wav_bytes
from wholetrack.contracts import AudioSpec, FeatureSpec, RelativeToMax
from wholetrack.decoding.decoder import Decoding, FfmpegDecoder
from wholetrack.features.logmel import LogMel
from wholetrack_training.data.audio_augmentation import VERSIONS, pieces
from wholetrack_training.data.cache import FeatureCache
from wholetrack_training.data.dataset import load_folder
from wholetrack_training.data.splits import Split, artist_split, random_split, read_split
from wholetrack_training.data.tracks import DataError, TrackSet

AUDIO = AudioSpec(sample_rate=22050)
FEATURES = FeatureSpec(
    n_fft=2048,
    frames_per_second=13,
    n_mels=128,
    fmin=0.0,
    fmax=11025.0,
    floor=1e-10,
    normalisation=RelativeToMax(range_db=60),
)
Load = Callable[[], TrackSet]


@pytest.fixture
def root(tmp_path: Path, tune: NDArray[np.float32], recorder: Recorder) -> Path:
    """Two genres in all formats, with a duplicate, a broken file, a silent one and one that is no recording."""
    root = tmp_path / "music"
    original = tmp_path / "tune.wav"
    original.write_bytes(wav_bytes(tune, 22050))
    segment = recorder.load(original, "pcm_f32le")
    for genre, kinds in (("even", (LOSSLESS[4], LOSSY[0])), ("odd", (LOSSLESS[0], LOSSY[1]))):
        (root / genre).mkdir(parents=True)
        for number, kind in enumerate(kinds):
            sound = segment if genre == "even" else segment.reverse()
            recorder.convert(sound, kind, root / genre / f"{number}.{kind.suffix}")
    (root / "even" / "again.wav").write_bytes(wav_bytes(tune, 22050))
    (root / "even" / "once-more.wav").write_bytes(wav_bytes(tune, 22050))
    (root / "even" / "broken.mp3").write_text("no song")
    (root / "odd" / "silent.wav").write_bytes(wav_bytes(np.zeros(22050, dtype=np.float32), 22050))
    (root / "odd" / ".DS_Store").write_text("not music")
    (root / "README.txt").write_text("no genre")
    return root


@pytest.fixture
def load(root: Path, tmp_path: Path, decoder: FfmpegDecoder) -> Load:
    return lambda: load_folder(root, audio=AUDIO, features=FEATURES, decoder=decoder, cache=tmp_path / "cache")


def test_changed_copies_are_learned_from_and_kept(root: Path, tmp_path: Path, decoder: FfmpegDecoder) -> None:
    def load() -> TrackSet:
        return load_folder(
            root,
            audio=AUDIO,
            features=FEATURES,
            decoder=decoder,
            cache=tmp_path / "cache",
            versions=tuple(VERSIONS),
        )

    tracks = load()
    track = next(track for track in tracks.tracks if track.name == "even/again.wav")
    shifted, noisy = track.versions
    assert shifted.shape == noisy.shape == track.frames.shape
    assert all(len(other.versions) == 2 for other in tracks.tracks)
    # Noise fills what was empty and leaves what was loud.
    loud = track.frames > track.frames.max() - 15
    assert np.abs(noisy - track.frames)[loud].max() < 1.5
    assert np.quantile(noisy, 0.05) > np.quantile(track.frames, 0.05) + 5
    assert np.abs(shifted - track.frames).mean() > 1
    written = {path: path.stat().st_mtime_ns for path in entries(tmp_path)}
    for one, other in zip(tracks.tracks, load().tracks, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.versions, other.versions, strict=True))
    assert {path: path.stat().st_mtime_ns for path in entries(tmp_path)} == written


@pytest.mark.parametrize("sizes", [(10,), (3, 3, 3, 1), (25, 1, 9), (5, 5), ()])
def test_pieces_are_of_one_length_however_the_blocks_come(sizes: tuple[int, ...]) -> None:
    sound = np.arange(sum(sizes), dtype=np.float32)
    cut = list(pieces(np.split(sound, np.cumsum(sizes)[:-1]) if sizes else [], 4))
    assert [len(piece) for piece in cut[:-1]] == [4] * (len(cut) - 1)
    assert not cut or 0 < len(cut[-1]) <= 4
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *cut]), sound)


@pytest.mark.parametrize("name", list(VERSIONS))
def test_a_changed_copy_of_a_tone(name: str) -> None:
    time = np.arange(22050 * 70) / 22050
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    changed = VERSIONS[name](tone, 22050)
    assert changed.shape == tone.shape
    assert np.array_equal(changed, VERSIONS[name](tone, 22050))
    spectrum = np.abs(np.fft.rfft(changed[: 22050 * 4]))
    expected = 440 * 2 ** (1 / 12) if name == "a semitone up" else 440.0
    assert spectrum.argmax() / 4 == pytest.approx(expected, abs=1.0)
    if name == "with white noise":
        assert 10 * np.log10(np.square(changed - tone).mean() / np.square(tone).mean()) == pytest.approx(-20, abs=0.1)


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*/*"))


def test_recordings_become_tracks_and_what_cannot_be_used_is_listed(
    load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = load()
    assert found.labels == ("even", "odd")
    assert [(t.name, t.genre, t.duplicate_of) for t in found.tracks] == [
        ("even/0.flac", 0, None),
        ("even/1.mp3", 0, None),
        ("even/again.wav", 0, None),
        ("even/once-more.wav", 0, "even/again.wav"),
        ("odd/0.wav", 1, None),
        ("odd/1.ogg", 1, None),
    ]
    assert found.tracks[2].frames.shape == (130, 128)
    with (tmp_path / "cache" / "left-out.csv").open(newline="") as file:
        refused = {row["track"]: row["reason"] for row in csv.DictReader(file)}
    assert set(refused) == {"even/broken.mp3", "odd/silent.wav"}
    assert refused["even/broken.mp3"].startswith("unsupported_media: ")
    assert refused["odd/silent.wav"] == "it is silent"
    assert "even/broken.mp3 is left out: " in caplog.text


def test_a_recording_that_may_not_be_read_is_left_out_and_tried_again(
    load: Load, tmp_path: Path, decoder: FfmpegDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = decoder.open

    def refusing(path: Path, **options: Any) -> Decoding:
        if path.name == "1.ogg":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "open", refusing)
        assert "odd/1.ogg" not in {track.name for track in load().tracks}
    assert "odd/1.ogg,it cannot be read: Permission denied" in (tmp_path / "cache" / "left-out.csv").read_text()
    assert "odd/1.ogg" in {track.name for track in load().tracks}


def test_features_are_those_of_the_service(load: Load, tune: NDArray[np.float32]) -> None:
    stream = LogMel(FEATURES, 22050).stream()
    expected = np.concatenate((stream.push(tune), stream.finish()))
    # The PCM came through a 32-bit float WAV, so that nothing was rounded but by the resampler that had nothing to do.
    np.testing.assert_allclose(load().tracks[2].frames, expected, atol=1e-3)


def test_nothing_is_heard_twice(load: Load, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load()
    opened: list[Path] = []
    open_ = FfmpegDecoder.open

    def watched(self: FfmpegDecoder, path: Path, *, sample_rate: int, max_duration_s: float) -> Decoding:
        opened.append(path)
        return open_(self, path, sample_rate=sample_rate, max_duration_s=max_duration_s)

    monkeypatch.setattr(FfmpegDecoder, "open", watched)
    again = load()
    assert opened == []
    for one, other in zip(first.tracks, again.tracks, strict=True):
        assert np.array_equal(one.frames, other.frames)
    # A file that changed is heard anew, and so is one whose entry was damaged.
    os.utime(root / "odd" / "0.wav")
    load()
    assert opened == [root / "odd" / "0.wav"]
    for entry in entries(tmp_path):
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    damaged = load()
    assert len(opened) == 1 + 8
    for one, other in zip(first.tracks, damaged.tracks, strict=True):
        assert np.array_equal(one.frames, other.frames)


def test_other_features_have_other_entries_but_not_another_normalisation(tmp_path: Path) -> None:
    def folder(features: FeatureSpec) -> Path:
        return FeatureCache(tmp_path, AUDIO, features).folder

    assert folder(FEATURES) != folder(FEATURES.model_copy(update={"n_fft": 1024}))
    assert folder(FEATURES) == folder(FEATURES.model_copy(update={"normalisation": RelativeToMax(range_db=80)}))


BUILD = """
import sys
from pathlib import Path
from wholetrack.decoding.decoder import Decoding, FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack_training.data.dataset import load_folder
from tests.wholetrack_training.test_dataset import AUDIO, FEATURES
root, cache = map(Path, sys.argv[1:])
load_folder(root, audio=AUDIO, features=FEATURES, decoder=FfmpegDecoder(find_ffmpeg()), cache=cache)
"""


def test_killed_at_ten_random_moments_the_features_are_the_same_to_the_last_bit(
    load: Load, root: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    undisturbed = load()
    cache = tmp_path / "killed"
    command = [sys.executable, "-c", BUILD, str(root), str(cache)]
    started = time.monotonic()
    subprocess.run([*command[:4], str(tmp_path / "timed")], cwd=PROJECT, check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    for moment in rng.uniform(0.2, 1.0, 10):
        with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL) as process:
            time.sleep(moment * seconds)
            process.kill()
    subprocess.run(command, cwd=PROJECT, check=True, stderr=subprocess.DEVNULL)
    built, expected = sorted(cache.glob("*/*")), entries(tmp_path)
    assert [entry.name for entry in built] == [entry.name for entry in expected]
    assert len(built) == len(undisturbed) + 2
    for one, other in zip(built, expected, strict=True):
        with np.load(one) as found, np.load(other) as wanted:
            assert np.array_equal(found["frames"], wanted["frames"])
            assert found["digest"] == wanted["digest"]


def test_a_full_disk_is_a_sentence_and_leaves_no_half_entry(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wholetrack_training.data.cache.os.fsync", full)
    with pytest.raises(DataError, match="cannot be kept in .*cache: No space left on device"):
        load()
    assert entries(tmp_path) == []


def test_folders_that_cannot_be_learned_from(load: Load, root: Path, tmp_path: Path) -> None:
    for file in (root / "odd").glob("[01]*"):
        file.unlink()
    with pytest.raises(DataError, match="no recording of the genre odd can be used: .*left-out.csv says why"):
        load()
    for file in (root / "odd").glob("*.wav"):
        file.unlink()
    with pytest.raises(DataError, match="the folder of the genre odd is empty"):
        load()
    (root / "odd" / ".DS_Store").unlink()
    (root / "odd").rmdir()
    with pytest.raises(DataError, match="at least two folders"):
        load()
    assert not list(tmp_path.glob("cache/*/*.unfinished"))


def test_a_table_of_artists_gives_folds_in_which_nobody_is_twice(load: Load, root: Path) -> None:
    table = root / "tracks.csv"
    table.write_text("track,artist\neven/0.flac,a\neven/nowhere.wav,b\n")
    with pytest.raises(DataError, match="names 1 tracks that are not there, such as even/nowhere.wav"):
        load()
    table.write_text("file,singer\neven/0.flac,a\n")
    with pytest.raises(DataError, match="must have the columns track and artist"):
        load()
    rows = ["even/0.flac,a", "even/1.mp3,b", "even/again.wav,c", "even/once-more.wav,d", "odd/0.wav,x", "odd/1.ogg,y"]
    table.write_text("\n".join(["track,artist", *rows]))
    with pytest.raises(DataError, match="fewer than 3 artists"):
        load()
    table.write_text("\n".join(["track,artist,fold", *(f"{row},{i % 2 + 1}" for i, row in enumerate(rows))]))
    found = load()
    assert [track.fold for track in found.tracks] == [1, 2, 1, 2, 1, 2]
    assert artist_split(found, fold=1, seed=0).test == ("even/0.flac", "even/again.wav", "odd/0.wav")


def test_a_split_can_be_given(load: Load, tmp_path: Path) -> None:
    tracks, path = load(), tmp_path / "split.json"
    path.write_text('{"train": ["even/0.flac", "odd/0.wav"], "validation": ["even/1.mp3"], "test": ["odd/1.ogg"]}')
    assert read_split(path, tracks) == Split(("even/0.flac", "odd/0.wav"), ("even/1.mp3",), ("odd/1.ogg",))
    for text, complaint in (
        ('{"train": ["x"], "validation": [], "test": []}', "names 1 tracks that are not there, such as x"),
        ('{"train": ["odd/0.wav"], "validation": [], "test": ["odd/0.wav"]}', "a track on two sides"),
        ('{"train": []}', "is no split"),
        ("[", "is no split"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=complaint):
            read_split(path, tracks)
    assert random_split(tracks, seed=1).train
