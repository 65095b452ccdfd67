"""The layers of the sandbox, each of which can be missing on a machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum


class Layer(StrEnum):
    """One of the independent mechanisms that restrict a sandboxed program.

    Each layer alone already prevents much of what a malicious input could make a program do.

    Attributes:
        LANDLOCK: File access (landlock(7)). The program can read its input and execute itself. It can write no file,
            open no TCP connection and signal no process outside the sandbox.
        SECCOMP: System calls (seccomp(2)). Only those needed to read, compute and write to pipes are allowed; none
            that creates a process or affects another one.
        LIMITS: Resource limits (setrlimit(2)) on memory, CPU time and open files. No byte can be written to any file.
    """

    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    LIMITS = "limits"


ALL_LAYERS = frozenset(Layer)

_REQUIREMENTS = {
    Layer.LANDLOCK: "Linux 5.13 or newer with Landlock enabled",
    Layer.SECCOMP: "libseccomp.so.2 (Debian package libseccomp2) and a kernel that supports seccomp filters",
}


def missing_layers(layers: Collection[Layer]) -> Iterator[str]:
    """Yield a description of each layer that is not among ``layers``, with what it requires."""
    for layer, requirement in _REQUIREMENTS.items():
        if layer not in layers:
            yield f"{layer}, which requires {requirement}"
