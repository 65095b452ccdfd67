"""The genres in the tags of an audio file, in any format, by means of mutagen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mutagen
from mutagen._vorbis import VCommentDict
from mutagen.apev2 import APEv2
from mutagen.asf import ASFTags
from mutagen.id3 import ID3, TCON
from mutagen.mp4 import MP4Tags

_VORBIS, _MP4, _ASF, _APE = "genre", "\xa9gen", "WM/Genre", "Genre"
_UTF16, _UTF8 = 1, 3


class TagError(Exception):
    """The tags of a file cannot be read or written. The message says why, as a clause."""


class AudioTags:
    """The tags of one file.

    Args:
        path: The file.
        separator: Written between several genres, for players that know only one; None for separate values.

    Raises:
        TagError: If the file has no tags that can be written, or they cannot be parsed.
    """

    def __init__(self, path: Path, *, separator: str | None = None) -> None:
        self._separator = separator
        try:
            file = mutagen.File(path)
            if file is None:
                raise TagError("the format has no tags that can be written")
            if isinstance(file.tags, ID3):
                # Otherwise, other frames of ID3v2.3 would be converted to those of version 2.4.
                file = type(file)(path, translate=False)
            elif file.tags is None:
                file.add_tags()
        except (mutagen.MutagenError, ValueError, KeyError, IndexError, TypeError) as error:
            raise TagError(f"its tags cannot be read ({_first_line(error)})") from error
        self._file = file
        if isinstance(file.tags, ID3) and file.tags.version < (2, 3, 0):
            raise TagError("its tags are ID3v2.2, which cannot be kept as they are")

    def genres(self) -> list[str]:
        """Return the genres, as names."""
        tags = self._file.tags
        if isinstance(tags, ID3):
            names = [genre for frame in tags.getall("TCON") for genre in frame.genres if genre]
            # Version 2.3 has no other separator.
            return names if tags.version >= (2, 4, 0) else [part for name in names for part in name.split("/") if part]
        return [str(value) for value in tags.get(self._key(), []) if str(value)]

    def raw_genres(self) -> list[str]:
        """Return the genres as they are stored: in ID3, they may be numbers."""
        tags = self._file.tags
        if isinstance(tags, ID3):
            return [str(text) for frame in tags.getall("TCON") for text in frame.text]
        return self.genres()

    def set_genres(self, genres: Sequence[str]) -> None:
        """Replace the genres; an empty sequence removes them."""
        values = [self._separator.join(genres)] if self._separator is not None and genres else list(genres)
        tags = self._file.tags
        if isinstance(tags, ID3):
            encoding = _UTF16 if tags.version < (2, 4, 0) else _UTF8
            tags.setall("TCON", [TCON(encoding=encoding, text=values)] if values else [])
        elif values:
            tags[self._key()] = values
        elif self._key() in tags:
            del tags[self._key()]

    def save(self, path: Path) -> None:
        """Write the tags into a copy of the file.

        Raises:
            TagError: If mutagen cannot write them.
            OSError: If the copy cannot be written.
        """
        options: dict[str, Any] = {}
        if isinstance(self._file.tags, ID3):
            options = {"v2_version": 3 if self._file.tags.version < (2, 4, 0) else 4, "v23_sep": "/"}
        try:
            self._file.save(path, **options)
        except mutagen.MutagenError as error:
            if isinstance(cause := error.__cause__ or error.__context__, OSError):
                raise cause from error
            raise TagError(f"its tags cannot be written ({_first_line(error)})") from error

    def _key(self) -> str:
        keys: dict[type, str] = {VCommentDict: _VORBIS, MP4Tags: _MP4, ASFTags: _ASF, APEv2: _APE}
        for kind, key in keys.items():
            if isinstance(self._file.tags, kind):
                return key
        raise TagError(f"{type(self._file).__name__} is not supported")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
