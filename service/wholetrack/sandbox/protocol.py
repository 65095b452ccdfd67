"""The messages between the service and the launcher.

They are connected by a Unix socket that preserves message boundaries (``SOCK_SEQPACKET``):

1. When the launcher is ready, it sends the names of the layers that this machine supports, as a JSON list.
2. To spawn a program, or a function that the launcher has imported, the service sends a :class:`SpawnRequest` with
   four descriptors: the input file, the write ends of the pipes for stdout and stderr, and one end of a status socket.
3. Over the status socket, the launcher replies with the process id and a pidfd, or with a negative ``errno`` value and
   no descriptor. When the program ends, it sends the exit status: that of the program, or minus the signal number.
4. Meanwhile the service can send a new CPU time limit, in whole seconds.

Numbers are sent as decimal digits. When the service closes a status socket, the launcher kills that program. When the
service closes the main socket, or ends, the launcher kills all programs and exits.
"""

from __future__ import annotations

import json
import resource
from typing import NamedTuple, Self

INPUT_FD = 3
"""The descriptor of the input file in a spawned program, or of the socket of a function."""

NOT_STARTED = 127
"""The exit status of a child that could not execute the program. Its stderr says why."""

LAUNCHER_NAME = "launcher"
"""The process name of the launcher, as ``ps`` and ``/proc/PID/comm`` show it."""

N_DESCRIPTORS = 4
"""The number of descriptors that accompany a spawn request."""

MAX_REQUEST_BYTES = 64 << 10
MAX_REPLY_BYTES = 4 << 10


class LauncherOptions(NamedTuple):
    """What a launcher is started for: a program, or functions of a module that it imports once.

    Attributes:
        socket_fd: Descriptor of the socket to the service.
        program: Path of the program that will be spawned; None for functions.
        libraries: Further files and folders that the program can read.
        prepare: For functions, ``MODULE:FUNCTION`` to import and call before the launcher is ready; else None.
    """

    socket_fd: int
    program: str | None
    libraries: list[str]
    prepare: str | None


class SpawnRequest(NamedTuple):
    """A program or a function to start.

    Attributes:
        command: Path and arguments of the program; empty for a function.
        function: ``MODULE:FUNCTION`` to call in the child, with :data:`INPUT_FD`; None for a program.
        environment: All environment variables of the program; it inherits none.
        layers: Names of the layers to apply.
        rlimits: Resource, soft limit and hard limit, as in setrlimit(2).
        cpu: Number of the CPU to pin the program to; None to let the kernel choose.
    """

    command: list[str]
    function: str | None
    environment: dict[str, str]
    layers: list[str]
    rlimits: list[tuple[int, int, int]]
    cpu: int | None

    def encode(self) -> bytes:
        """Return the message for the launcher."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Read a message from the service."""
        return cls(**json.loads(message))

    @property
    def max_cpu_s(self) -> int | None:
        """The hard limit on the CPU time in seconds; None if there is none."""
        return next((hard for kind, _, hard in self.rlimits if kind == resource.RLIMIT_CPU), None)
