"""Genres in the tags of every format: nothing else changes, and no file is ever half written."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutagen
import pytest
from mutagen.id3 import ID3, TCON, TIT2, TXXX, TYER
from mutagen.mp3 import MP3

from tests.harness.recordings import Kind, Recorder
from wholetrack.tagging.audio_tags import AudioTags, TagError
from wholetrack.tagging.writer import Entry, FileState, GenreWriter, Journal, undo

FORMATS = (
    Kind("mp3", "mp3", "libmp3lame", ("-id3v2_version", "3", "-write_id3v1", "1")),
    Kind("mp3", "mp3", "libmp3lame", ("-id3v2_version", "4")),
    Kind("flac", "flac", "flac"),
    Kind("ogg", "ogg", "libvorbis"),
    Kind("oga", "ogg", "flac"),
    Kind("opus", "opus", "libopus"),
    Kind("m4a", "ipod", "aac"),
    Kind("wav", "wav", "pcm_s16le"),
    Kind("aiff", "aiff", "pcm_s16be", ("-write_id3v2", "1")),
    Kind("wma", "asf", "wmav2"),
)
METADATA = {"title": "Übung", "artist": "Jemand", "date": "1999"}


def record(recorder: Recorder, folder: Path, kind: Kind, *, genre: str | None = None) -> Path:
    path = folder / f"song.{kind.suffix}"
    metadata = METADATA | ({"genre": genre} if genre else {})
    tags = [part for name, value in metadata.items() for part in ("-metadata", f"{name}={value}")]
    source = ("-f", "lavfi", "-i", "sine=f=440:r=44100:d=2")
    recorder.run(*source, "-ac", "1", "-c:a", kind.encoder, *kind.arguments, *tags, "-f", kind.muxer, path)
    return path


def write(path: Path, genres: Sequence[str], journal: Journal | None = None, **options: Any) -> None:
    options = {"separator": None, "keep_mtime": False} | options
    GenreWriter(journal, **options).write(path, genres, expected=FileState.of(path))


def audio_of(recorder: Recorder, path: Path) -> bytes:
    """Return the decoded audio."""
    return recorder.output("-i", path, "-map", "0:a", "-f", "s16le", "-")


def other_tags(path: Path) -> dict[str, str]:
    """Return all tags except the genre, as mutagen shows them."""
    file = mutagen.File(path, easy=False)
    tags = dict(file.tags.items()) if file is not None and file.tags is not None else {}
    return {
        name: str(value) for name, value in tags.items() if name.lower() not in ("genre", "\xa9gen", "wm/genre", "tcon")
    }


@pytest.mark.parametrize("genre", [None, "Old"], ids=["none", "one"])
@pytest.mark.parametrize("kind", FORMATS, ids=str)
def test_only_the_genre_changes(recorder: Recorder, tmp_path: Path, kind: Kind, genre: str | None) -> None:
    path = record(recorder, tmp_path, kind, genre=genre)
    audio, others, before = audio_of(recorder, path), other_tags(path), AudioTags(path).genres()
    write(path, ["Blues", "Hip-Hop"])
    assert AudioTags(path).genres() == ["Blues", "Hip-Hop"]
    assert audio_of(recorder, path) == audio
    assert other_tags(path) == others
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    write(path, [])
    assert AudioTags(path).genres() == []
    write(path, before)
    assert AudioTags(path).genres() == before


@pytest.mark.parametrize("kind", FORMATS, ids=str)
def test_other_programs_read_the_genre(recorder: Recorder, tmp_path: Path, kind: Kind) -> None:
    path = record(recorder, tmp_path, kind)
    write(path, ["Blues"])
    # ffmpeg does not read ID3 inside of WAV.
    if kind.suffix != "wav":
        done = subprocess.run(
            [recorder.ffmpeg.path, "-i", path, "-f", "ffmetadata", "-"], capture_output=True, text=True, check=True
        )
        assert "genre=blues" in done.stdout.lower() + done.stderr.lower().replace(" ", "").replace("genre:", "genre=")


@pytest.mark.parametrize(("kind", "version"), [(FORMATS[0], (2, 3, 0)), (FORMATS[1], (2, 4, 0))], ids=str)
def test_id3_keeps_its_version_and_its_frames(
    recorder: Recorder, tmp_path: Path, kind: Kind, version: tuple[int, int, int]
) -> None:
    path = record(recorder, tmp_path, kind)
    tags = ID3(path, translate=False)
    tags.add(TXXX(encoding=1, desc="mood", text=["calm"]))
    if version == (2, 3, 0):
        # Version 2.4 has another frame for it.
        tags.add(TYER(encoding=0, text=["1999"]))
    tags.save(path, v2_version=version[1])
    write(path, ["Blues", "Soul"])
    found = ID3(path, translate=False)
    assert found.version == version
    assert found["TXXX:mood"].text == ["calm"]
    assert ("TYER" in found) == (version == (2, 3, 0))
    # Players that know version 2.3 only expect a slash between several genres.
    assert found["TCON"].text == (["Blues/Soul"] if version == (2, 3, 0) else ["Blues", "Soul"])


def test_a_numeric_genre_is_read_as_its_name_and_restored_as_a_number(recorder: Recorder, tmp_path: Path) -> None:
    path = record(recorder, tmp_path, FORMATS[0])
    tags = ID3(path, translate=False)
    tags.add(TCON(encoding=0, text=["(17)"]))
    tags.save(path, v2_version=3)
    assert AudioTags(path).genres() == ["Rock"]
    with (tmp_path / "journal").open("ab") as file:
        write(path, ["Blues"], Journal(file))
    (entry,) = Journal.read(tmp_path / "journal")
    undo(entry, GenreWriter(None, separator=None, keep_mtime=False))
    assert ID3(path, translate=False)["TCON"].text == ["(17)"]


def test_a_separator_makes_one_value_of_several(recorder: Recorder, tmp_path: Path) -> None:
    path = record(recorder, tmp_path, FORMATS[2])
    write(path, ["Blues", "Soul"], separator="; ")
    assert AudioTags(path).genres() == ["Blues; Soul"]


def test_permissions_stay_and_modification_times_if_wanted(recorder: Recorder, tmp_path: Path) -> None:
    path = record(recorder, tmp_path, FORMATS[2])
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18))
    write(path, ["Blues"], keep_mtime=True)
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime_ns) == (0o640, 10**18)
    write(path, ["Soul"])
    assert path.stat().st_mtime_ns > 10**18


def test_a_symbolic_link_stays_one(recorder: Recorder, tmp_path: Path) -> None:
    path = record(recorder, tmp_path, FORMATS[2])
    link = tmp_path / "link.flac"
    link.symlink_to(path)
    write(link, ["Blues"])
    assert link.is_symlink()
    assert AudioTags(path).genres() == ["Blues"]


class TestFaults:
    """After each of them, the file is as it was, and nothing else is in its folder."""

    @pytest.fixture
    def song(self, recorder: Recorder, tmp_path: Path) -> Path:
        folder = tmp_path / "music"
        folder.mkdir()
        return record(recorder, folder, FORMATS[0], genre="Old")

    def assert_untouched(self, song: Path, content: bytes) -> None:
        assert song.read_bytes() == content
        assert [entry.name for entry in song.parent.iterdir() if entry.name != "other.mp3"] == [song.name]

    def test_a_full_disk(self, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(source: Path, target: Path) -> None:
            target.write_bytes(source.read_bytes()[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        content = song.read_bytes()
        monkeypatch.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            write(song, ["Blues"])
        self.assert_untouched(song, content)

    def test_a_disk_that_is_full_once_the_tags_are_written(self, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise mutagen.MutagenError(error) from error

        content = song.read_bytes()
        monkeypatch.setattr(MP3, "save", full)
        with pytest.raises(OSError, match="No space left"):
            write(song, ["Blues"])
        self.assert_untouched(song, content)

    def test_a_journal_that_cannot_be_written(self, song: Path) -> None:
        class Full(io.BytesIO):
            def write(self, _: Any) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        content = song.read_bytes()
        with pytest.raises(OSError, match="No space left"):
            write(song, ["Blues"], Journal(Full()))
        self.assert_untouched(song, content)

    def test_a_file_that_has_changed_since_it_was_predicted(self, song: Path) -> None:
        expected = FileState.of(song)
        tags = ID3(song)
        tags.add(TIT2(encoding=3, text=["Other"]))
        tags.save(song)
        content = song.read_bytes()
        for state in (expected, replace(FileState.of(song), modified_ns=1)):
            with pytest.raises(TagError, match="changed in the meantime"):
                GenreWriter(None, separator=None, keep_mtime=False).write(song, ["Blues"], expected=state)
        self.assert_untouched(song, content)

    def test_a_file_with_several_names(self, song: Path) -> None:
        content = song.read_bytes()
        (song.parent / "other.mp3").hardlink_to(song)
        with pytest.raises(TagError, match="hard links"):
            write(song, ["Blues"])
        self.assert_untouched(song, content)

    def test_a_file_that_may_not_be_written(self, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = song.read_bytes()
        # As root, every file may be written.
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(PermissionError):
            write(song, ["Blues"])
        self.assert_untouched(song, content)

    @pytest.mark.parametrize(
        "content", [b"", b"no audio", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(50), b"fLaC" + bytes(30)]
    )
    def test_tags_that_cannot_be_parsed(self, song: Path, content: bytes) -> None:
        song.write_bytes(content)
        with pytest.raises(TagError):
            write(song, ["Blues"])
        self.assert_untouched(song, content)


def test_changes_are_undone_in_reverse_order_unless_others_followed(recorder: Recorder, tmp_path: Path) -> None:
    path = record(recorder, tmp_path, FORMATS[2], genre="Old")
    journal = tmp_path / "journal"
    with journal.open("ab") as file:
        write(path, ["Blues"], Journal(file))
        write(path, ["Blues", "Soul"], Journal(file))
    plain = GenreWriter(None, separator=None, keep_mtime=False)
    for entry, expected in zip(Journal.read(journal), (["Blues"], ["Old"]), strict=True):
        undo(entry, plain)
        assert AudioTags(path).genres() == expected
    with pytest.raises(TagError, match="changed since"):
        undo(Entry(str(path), (), ("Blues",)), plain)


def test_an_incomplete_last_line_of_a_journal_is_skipped(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    line = json.dumps({"time": "", "path": "a", "before": [], "after": ["Blues"]})
    journal.write_text(f"{line}\n{line[:20]}")
    assert list(Journal.read(journal)) == [Entry("a", (), ("Blues",))]
