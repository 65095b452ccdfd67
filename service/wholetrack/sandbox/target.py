"""What a sandbox spawns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is executed.

    Attributes:
        path: Path of the program.
        libraries: Files and folders that it can read besides its input and the system libraries.
    """

    path: Path
    libraries: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Functions:
    """Functions of a module that the launcher imports once. They run in a fork of the launcher and can open no file.

    Attributes:
        prepare: ``MODULE:FUNCTION`` that the launcher calls once. It should load what functions would load later.
        packages: Names of the installed packages and modules that the module imports, directly or not.
    """

    prepare: str
    packages: Sequence[str] = ()
