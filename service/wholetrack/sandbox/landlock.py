"""File access rules of a sandboxed program, enforced by Landlock (landlock(7))."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from landlockpy import AccessFS, Ruleset, Scope, abi_version

_READ, _READ_AND_EXECUTE = AccessFS.READ_FILE, AccessFS.READ_FILE | AccessFS.EXECUTE
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache")
_LOADERS = ("/lib64/ld-linux-*", "/lib/ld-linux-*", "/lib/ld-musl-*", "/lib/*/ld-linux-*")


class FileAccessRules:
    """Allow a program to read one input file, execute itself, and read the system libraries.

    Args:
        program: Path of the program; None for a function, which can open no file at all.
        libraries: Further files and folders that it can read.
    """

    def __init__(self, program: Path | None, libraries: Sequence[Path]) -> None:
        # The first use of landlockpy starts ldconfig. After this call, the children do not have to.
        abi_version()
        self._reads_input = program is not None
        self._rules: list[tuple[Path, AccessFS]] = []
        if program is None:
            return
        executable = program.resolve()
        readable = [*map(Path, _LIBRARIES), executable.parent.parent / "lib", *libraries]
        loaders = [loader for pattern in _LOADERS for loader in Path("/").glob(pattern[1:])]
        self._rules = [(path, _READ_AND_EXECUTE) for path in (executable, *loaders)]
        self._rules += [(p, _READ | AccessFS.READ_DIR if p.is_dir() else _READ) for p in readable if p.exists()]

    def apply(self, input_fd: int) -> None:
        """Restrict the calling thread, and the program that it executes, irrevocably.

        Args:
            input_fd: Descriptor of the file that can be read.

        Raises:
            LandlockError: If the kernel does not support Landlock.
        """
        with Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET) as rules:
            for path, access in self._rules:
                rules.allow_path(path, access)
            if self._reads_input:
                rules.allow_path(f"/proc/self/fd/{input_fd}", _READ)
            rules.restrict()
