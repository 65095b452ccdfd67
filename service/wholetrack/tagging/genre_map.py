"""Names of genres as a library wants them: other words, a tree to go up, and a list of those that are allowed."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PRESETS = ("id3v1", "beets", "musicbrainz")
"""Maps that are part of the package."""


class GenreMapError(Exception):
    """A genre map cannot be read. The message is a sentence about the file."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    names: dict[str, str] = Field(default_factory=dict)
    aliases: dict[str, str] = Field(default_factory=dict)
    parents: dict[str, str] = Field(default_factory=dict)
    allowed: list[str] | None = None


@dataclass(frozen=True, slots=True)
class GenreMap:
    """Turns the genres of a model into the names that are written.

    Upper and lower case are the same wherever names are compared.

    Attributes:
        names: What to call the genres of the model.
        aliases: Other spellings of names that files may have.
        parents: The next more general name of each.
        allowed: The only names that may be written; None for all. A name that is not among them becomes the nearest
            one above it that is.
    """

    names: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    allowed: tuple[str, ...] | None = None

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return one of :data:`PRESETS`."""
        text = resources.files(__package__).joinpath("maps", f"{name}.toml").read_text(encoding="utf-8")
        return cls.parse(text, origin=name)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a TOML file.

        Raises:
            GenreMapError: If it cannot be read or is not a genre map.
        """
        try:
            return cls.parse(path.read_text(encoding="utf-8"), origin=str(path))
        except OSError as error:
            raise GenreMapError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise GenreMapError(f"{path} is not UTF-8") from error

    @classmethod
    def parse(cls, text: str, *, origin: str) -> Self:
        """Read TOML.

        Args:
            text: The contents.
            origin: Where they come from, for errors.

        Raises:
            GenreMapError: If it is not a genre map.
        """
        try:
            document = _Document.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise GenreMapError(f"{origin} is not TOML: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise GenreMapError(f"{origin}: {place}: {first['msg']}") from error
        found = cls(
            names=_with_folded_keys(document.names),
            aliases=_with_folded_keys(document.aliases),
            parents=_with_folded_keys(document.parents),
            allowed=None if document.allowed is None else tuple(document.allowed),
        )
        for name in found.parents:
            found._check_tree(name, origin)
        return found

    def name_of(self, genre: str) -> str | None:
        """Return the name to write for a genre of the model; None if none is allowed."""
        name: str | None = self.canonical(self.names.get(genre.casefold(), genre))
        while name is not None:
            if self.allowed is None:
                return name
            for allowed in self.allowed:
                if allowed.casefold() == name.casefold():
                    return allowed
            name = self.parents.get(name.casefold())
        return None

    def canonical(self, name: str) -> str:
        """Return the usual spelling of a name that a file has."""
        return self.aliases.get(name.casefold(), name)

    def _check_tree(self, name: str, origin: str) -> None:
        seen = {name}
        while (parent := self.parents.get(name)) is not None:
            name = parent.casefold()
            if name in seen:
                raise GenreMapError(f"{origin}: parents: {parent!r} is above itself")
            seen.add(name)


def _with_folded_keys(names: dict[str, str]) -> dict[str, str]:
    return {name.casefold(): value for name, value in names.items()}
