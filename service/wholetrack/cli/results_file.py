"""A file of predictions as JSON lines, which a later run continues."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from wholetrack.cli.files import Content, text_of


class ResultsFileError(Exception):
    """A file of predictions cannot be continued. The message says why, in a sentence."""


@dataclass(slots=True)
class _Known:
    """The lines for one content: where the first of them begins, and the names of all."""

    offset: int
    filenames: set[str] = field(default_factory=set)


class ResultsFile:
    """Appends predictions, each in one step, so that the file is valid whenever the process ends.

    Args:
        path: The file. It is created if it does not exist.
        facts: What the predictions must have in common, as ``model.name`` in a line: fields by their dotted names.

    Raises:
        ResultsFileError: If it cannot be opened, another process has it open, it has other lines, or predictions of
            another kind.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self._name = text_of(path)
        self._known: dict[str, _Known] = {}
        self.n_earlier = 0
        """Number of lines of earlier runs."""
        try:
            self._file: IO[bytes] = path.open("a+b")
        except OSError as error:
            raise ResultsFileError(f"cannot write {self._name}: {error.strerror}") from error
        try:
            self._lock()
            self._read(facts)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def knows(self, content: Content) -> bool:
        """Return whether there is a line for a file with this content. Any thread may ask."""
        return content.sha256 in self._known

    def repeat(self, content: Content, filename: str) -> None:
        """Make sure that there is a line for a file whose content is known, like the one that there is.

        Raises:
            OSError: If the file cannot be written.
        """
        known = self._known[content.sha256]
        if filename in known.filenames:
            return
        line = os.pread(self._file.fileno(), self._length_at(known.offset), known.offset)
        document = json.loads(line)
        document["track"]["filename"] = filename
        self.append(content, filename, json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")

    def append(self, content: Content, filename: str, line: str) -> None:
        """Append a line.

        Raises:
            OSError: If it cannot be written. What was written of it is removed.
        """
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line.encode())
            self._file.flush()
        except OSError:
            os.ftruncate(self._file.fileno(), end)
            raise
        self._known.setdefault(content.sha256, _Known(end)).filenames.add(filename)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResultsFileError(f"another process is writing {self._name}") from error

    def _read(self, facts: dict[str, Any]) -> None:
        """Read the lines of earlier runs, and remove a last one that is incomplete."""
        self._file.seek(0)
        offset = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                os.ftruncate(self._file.fileno(), offset)
                break
            try:
                document = json.loads(line)
                track = document["track"]
                found = {name: _field(document, name) for name in facts}
                self._known.setdefault(track["sha256"], _Known(offset)).filenames.add(track["filename"])
            except (KeyError, TypeError, ValueError) as error:
                raise ResultsFileError(f"line {number} of {self._name} is not a prediction") from error
            for name, value in facts.items():
                if found[name] != value:
                    raise ResultsFileError(
                        f"{self._name} has predictions with {name} {found[name]}, not {value}: write to another file"
                    )
            self.n_earlier += 1
            offset += len(line)

    def _length_at(self, offset: int) -> int:
        self._file.seek(offset)
        return len(self._file.readline())


def _field(document: dict[str, Any], name: str) -> object:
    value: Any = document
    for part in name.split("."):
        value = value[part]
    found: object = value
    return found
