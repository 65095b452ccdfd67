"""Replaces a file by a copy with other genres, so that it is never half written, and notes how to undo that."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from wholetrack.tagging.audio_tags import AudioTags, TagError


@dataclass(frozen=True, slots=True)
class FileState:
    """What changes if another program writes to a file.

    Attributes:
        inode: Number of the file in its file system.
        size: Size in bytes.
        modified_ns: Time of the last change, in nanoseconds.
    """

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Return the state of a file."""
        status = path.stat()
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Entry:
    """A change in a journal.

    Attributes:
        path: The file, absolute.
        before: The genres before, as they were stored.
        after: The genres afterwards, as they were stored.
    """

    path: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class Journal:
    """Appends each change to a file of JSON lines before it is made.

    Args:
        file: Open for appending.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, entry: Entry) -> None:
        """Write an entry to the disk.

        Raises:
            OSError: If it cannot be written. The change must not be made then.
        """
        document = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "path": entry.path,
            "before": entry.before,
            "after": entry.after,
        }
        self._file.write(json.dumps(document).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    @staticmethod
    def read(path: Path) -> Iterator[Entry]:
        """Yield the entries, the last one first. A last line that is incomplete is skipped: its change was not made.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is no journal.
        """
        lines = path.read_bytes().split(b"\n")
        for line in reversed(lines[:-1]):
            document = json.loads(line)
            yield Entry(document["path"], tuple(document["before"]), tuple(document["after"]))


class GenreWriter:
    """Writes genres into files.

    Args:
        journal: Where changes are noted; None for nowhere.
        separator: Written between several genres; None for separate values.
        keep_mtime: Whether files keep their modification times.
    """

    def __init__(self, journal: Journal | None, *, separator: str | None, keep_mtime: bool) -> None:
        self._journal = journal
        self._separator = separator
        self._keep_mtime = keep_mtime

    def write(self, path: Path, genres: Sequence[str], *, expected: FileState) -> None:
        """Replace the genres of a file.

        Args:
            path: The file.
            genres: Its genres afterwards.
            expected: Its state when the genres were chosen.

        Raises:
            TagError: If the file has changed since, or its tags cannot be written. It is as it was.
            OSError: If it cannot be written. It is as it was.
        """
        path = path.resolve()
        tags = AudioTags(path, separator=self._separator)
        before = tuple(tags.raw_genres())
        tags.set_genres(genres)
        status = path.stat()
        if status.st_nlink > 1:
            raise TagError("the file has several names (hard links), and only one of them would be changed")
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied", str(path))
        copy = self._copy_of(path)
        try:
            tags.save(copy)
            with copy.open("rb+") as file:
                os.fsync(file.fileno())
            shutil.copystat(path, copy)
            with suppress(PermissionError):
                os.chown(copy, status.st_uid, status.st_gid)
            if not self._keep_mtime:
                os.utime(copy)
            if FileState.of(path) != expected:
                raise TagError("the file has changed in the meantime")
            if self._journal:
                self._journal.add(Entry(str(path), before, tuple(tags.raw_genres())))
            copy.replace(path)
        finally:
            copy.unlink(missing_ok=True)

    @staticmethod
    def _copy_of(path: Path) -> Path:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".unfinished")
        os.close(descriptor)
        copy = Path(name)
        try:
            shutil.copyfile(path, copy)
        except OSError:
            copy.unlink(missing_ok=True)
            raise
        return copy


def undo(entry: Entry, writer: GenreWriter) -> None:
    """Write the genres of a file that it had before a change.

    Raises:
        TagError: If the file has other genres than those after the change.
        OSError: If it cannot be read or written.
    """
    path = Path(entry.path)
    state = FileState.of(path)
    if tuple(AudioTags(path).raw_genres()) != entry.after:
        raise TagError("its genres have been changed since")
    writer.write(path, entry.before, expected=state)
