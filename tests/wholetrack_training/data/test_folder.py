"""A folder of recordings per genre becomes tracks; unusable files are listed, and results are cached."""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.paths import PROJECT
from tests.harness.recordings import LOSSLESS, LOSSY, Recorder, wav_bytes
from tests.wholetrack_training.features import AUDIO, FEATURES
from tests.wholetrack_training.killing import KILLS
from wholetrack.contracts import FeatureSpec, RelativeToMax
from wholetrack.decoding.decoder import Decoding, FfmpegDecoder
from wholetrack.features.logmel import LogMel
from wholetrack_training.data.audio_augmentation import VERSIONS
from wholetrack_training.data.cache import FeatureCache
from wholetrack_training.data.folder import load_folder
from wholetrack_training.data.splits import Split, artist_split, random_split, read_split
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import DataError

Load = Callable[[], TrackSet]


@pytest.fixture
def root(tmp_path: Path, tune: NDArray[np.float32], recorder: Recorder) -> Path:
    """Two genres in several formats, with duplicates, a broken file, a silent one and files that are not audio."""
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
    (root / "even" / "broken.mp3").write_text("not a song")
    (root / "odd" / "silent.wav").write_bytes(wav_bytes(np.zeros(22050, dtype=np.float32), 22050))
    (root / "odd" / ".DS_Store").write_text("not music")
    (root / "README.txt").write_text("not a genre")
    return root


@pytest.fixture
def load(root: Path, tmp_path: Path, decoder: FfmpegDecoder) -> Load:
    return lambda: load_folder(root, audio=AUDIO, features=FEATURES, decoder=decoder, cache=tmp_path / "cache")


def cache_entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*/*"))


def test_recordings_become_tracks_and_unusable_files_are_listed(
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
        rejected = {row["track"]: row["reason"] for row in csv.DictReader(file)}
    assert set(rejected) == {"even/broken.mp3", "odd/silent.wav"}
    assert rejected["even/broken.mp3"].startswith("unsupported_media: ")
    assert rejected["odd/silent.wav"] == "it is silent"
    assert "Leaving out even/broken.mp3: " in caplog.text


def test_an_unreadable_recording_is_left_out_and_tried_again_next_time(
    load: Load, tmp_path: Path, decoder: FfmpegDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = decoder.open

    def open_unless_forbidden(path: Path, **options: Any) -> Decoding[Any]:
        if path.name == "1.ogg":
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "open", open_unless_forbidden)
        assert "odd/1.ogg" not in {track.name for track in load().tracks}
    assert "odd/1.ogg,it cannot be read: Permission denied" in (tmp_path / "cache" / "left-out.csv").read_text()
    assert "odd/1.ogg" in {track.name for track in load().tracks}


def test_features_are_those_of_the_service(load: Load, tune: NDArray[np.float32]) -> None:
    stream = LogMel(FEATURES, 22050).stream()
    expected = np.concatenate((stream.push(tune), stream.finish()))
    # The WAV file has 32-bit floats and the target sample rate, so nothing but the resampler's pass-through rounds.
    np.testing.assert_allclose(load().tracks[2].frames, expected, atol=1e-3)


def test_augmented_copies_are_computed_and_cached(root: Path, tmp_path: Path, decoder: FfmpegDecoder) -> None:
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
    # Noise fills quiet bands and hardly changes loud ones.
    loud = track.frames > track.frames.max() - 15
    assert np.abs(noisy - track.frames)[loud].max() < 1.5
    assert np.quantile(noisy, 0.05) > np.quantile(track.frames, 0.05) + 5
    assert np.abs(shifted - track.frames).mean() > 1
    written = {path: path.stat().st_mtime_ns for path in cache_entries(tmp_path)}
    for one, other in zip(tracks.tracks, load().tracks, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.versions, other.versions, strict=True))
    assert {path: path.stat().st_mtime_ns for path in cache_entries(tmp_path)} == written


def test_only_changed_recordings_and_damaged_entries_are_computed_again(
    load: Load, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load()
    opened: list[Path] = []
    open_ = FfmpegDecoder.open

    def recording_open(self: FfmpegDecoder, path: Path, *, sample_rate: int, max_duration_s: float) -> Decoding[Any]:
        opened.append(path)
        return open_(self, path, sample_rate=sample_rate, max_duration_s=max_duration_s)

    monkeypatch.setattr(FfmpegDecoder, "open", recording_open)
    again = load()
    assert opened == []
    for one, other in zip(first.tracks, again.tracks, strict=True):
        assert np.array_equal(one.frames, other.frames)
    os.utime(root / "odd" / "0.wav")
    load()
    assert opened == [root / "odd" / "0.wav"]
    for entry in cache_entries(tmp_path):
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    damaged = load()
    assert len(opened) == 1 + 8
    for one, other in zip(first.tracks, damaged.tracks, strict=True):
        assert np.array_equal(one.frames, other.frames)


def test_the_cache_separates_features_but_not_normalisations(tmp_path: Path) -> None:
    def folder(features: FeatureSpec) -> Path:
        return FeatureCache(tmp_path, AUDIO, features).folder

    assert folder(FEATURES) != folder(FEATURES.model_copy(update={"n_fft": 1024}))
    assert folder(FEATURES) == folder(FEATURES.model_copy(update={"normalisation": RelativeToMax(range_db=80)}))


def test_an_extraction_killed_at_ten_random_moments_gives_the_same_features(
    load: Load, root: Path, tmp_path: Path
) -> None:
    tracks, (undisturbed, killed) = load(), (tmp_path / "undisturbed", tmp_path / "killed")
    program = [sys.executable, "-m", "tests.wholetrack_training.killing", "extract"]
    done = subprocess.run([*program, undisturbed, killed, root], cwd=PROJECT, check=True, stdout=subprocess.PIPE)
    assert json.loads(done.stdout)["killed"] == KILLS
    expected = cache_entries(tmp_path)
    assert len(expected) == len(tracks) + 2
    for cache in (undisturbed, killed):
        entries = sorted(cache.glob("*/*"))
        assert [entry.name for entry in entries] == [entry.name for entry in expected]
        for one, other in zip(entries, expected, strict=True):
            with np.load(one) as found, np.load(other) as wanted:
                assert np.array_equal(found["frames"], wanted["frames"])
                assert found["digest"] == wanted["digest"]


def test_a_full_disk_is_reported_and_leaves_no_partial_entry(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wholetrack_training.data.cache.os.fsync", full)
    with pytest.raises(DataError, match="cannot be stored in .*cache: No space left on device"):
        load()
    assert cache_entries(tmp_path) == []


def test_folders_without_usable_genres_are_refused(load: Load, root: Path, tmp_path: Path) -> None:
    for file in (root / "odd").glob("[01]*"):
        file.unlink()
    with pytest.raises(DataError, match="no recording of the genre odd can be used; see .*left-out.csv"):
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


def test_the_table_of_artists_is_checked_and_gives_folds(load: Load, root: Path) -> None:
    table = root / "tracks.csv"
    table.write_text("track,artist\neven/0.flac,a\neven/nowhere.wav,b\n")
    with pytest.raises(DataError, match="lists 1 tracks that do not exist, such as even/nowhere.wav"):
        load()
    table.write_text("file,singer\neven/0.flac,a\n")
    with pytest.raises(DataError, match="must have the columns track and artist"):
        load()
    table.write_text("track,artist,fold\neven/0.flac,a,first\n")
    with pytest.raises(DataError, match="has a fold that is not a number"):
        load()
    rows = ["even/0.flac,a", "even/1.mp3,b", "even/again.wav,c", "even/once-more.wav,d", "odd/0.wav,x", "odd/1.ogg,y"]
    table.write_text("\n".join(["track,artist", *rows]))
    with pytest.raises(DataError, match="fewer than 3 artists"):
        load()
    table.write_text("\n".join(["track,artist,fold", *(f"{row},{i % 2 + 1}" for i, row in enumerate(rows))]))
    found = load()
    assert [track.fold for track in found.tracks] == [1, 2, 1, 2, 1, 2]
    assert artist_split(found, fold=1, seed=0).test == ("even/0.flac", "even/again.wav", "odd/0.wav")


def test_a_split_can_be_read_from_a_file(load: Load, tmp_path: Path) -> None:
    tracks, path = load(), tmp_path / "split.json"
    path.write_text('{"train": ["even/0.flac", "odd/0.wav"], "validation": ["even/1.mp3"], "test": ["odd/1.ogg"]}')
    assert read_split(path, tracks) == Split(("even/0.flac", "odd/0.wav"), ("even/1.mp3",), ("odd/1.ogg",))
    for text, complaint in (
        ('{"train": ["x"], "validation": [], "test": []}', "lists 1 tracks that do not exist, such as x"),
        ('{"train": ["odd/0.wav"], "validation": [], "test": ["odd/0.wav"]}', "lists a track twice"),
        ('{"train": []}', "is not a split"),
        ("[", "is not a split"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=complaint):
            read_split(path, tracks)
    assert random_split(tracks, seed=1).train
