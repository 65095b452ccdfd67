"""The service's side of the sandbox: keeps a launcher running and asks it to spawn programs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from wholetrack.sandbox.connection import LauncherConnection, LauncherError
from wholetrack.sandbox.layers import ALL_LAYERS, Layer
from wholetrack.sandbox.limits import Limits
from wholetrack.sandbox.process import SandboxedProcess
from wholetrack.sandbox.protocol import SpawnRequest
from wholetrack.sandbox.target import Functions, Program

_log = logging.getLogger(__name__)


class Sandbox:
    """Spawns one program, or functions of one module, any number of times and from any thread, with restricted rights.

    Args:
        target: The program, or the functions.
        wanted: Layers to apply, as far as this machine supports them.

    Attributes:
        layers: The layers that are applied.

    Raises:
        LauncherError: If the launcher does not become ready.
        OSError: If the Python interpreter cannot be executed, or the machine is out of processes or descriptors.
    """

    def __init__(self, target: Program | Functions, *, wanted: Collection[Layer] = ALL_LAYERS) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._launcher: LauncherConnection | None = None
        supported = self._connect().layers
        self.layers = frozenset(layer for layer in wanted if layer in supported)

    def close(self) -> None:
        """Kill the launcher and all programs that are still running."""
        if self._launcher:
            self._disconnect(self._launcher)

    def owns(self, pid: int) -> bool:
        """Return whether a process is the launcher, whose exit status is collected when it is replaced or closed."""
        launcher = self._launcher
        return launcher is not None and launcher.pid == pid

    def spawn(
        self,
        command: Sequence[str],
        *,
        input_file: int,
        limits: Limits,
        environment: Mapping[str, str],
        cpu: int | None = None,
    ) -> SandboxedProcess:
        """Spawn the program with pipes for its stdout and stderr.

        A launcher that has ended or does not reply is replaced once, which kills the programs that it spawned.

        Args:
            command: Path of the program and its arguments.
            input_file: Descriptor of the one file that the program can read. In the program it has the number
                :data:`wholetrack.sandbox.protocol.INPUT_FD`.
            limits: Resource limits, applied if :attr:`layers` includes them.
            environment: All environment variables of the program; it inherits none.
            cpu: Number of the CPU to pin the program to; None to let the kernel choose.

        Raises:
            LauncherError: If the replacement fails as well.
            OSError: If the machine is out of processes or descriptors.
        """
        return self._spawn(self._request(limits, command=command, environment=environment, cpu=cpu), input_file)

    def spawn_function(self, function: str, *, control: int, limits: Limits) -> SandboxedProcess:
        """Call a function in a process of its own, with pipes for its stdout and stderr, as :meth:`spawn` does.

        Args:
            function: ``MODULE:FUNCTION``; the module is that of ``prepare``. The function gets the descriptor of its
                socket, and the process ends when it returns.
            control: Descriptor of a socket for the function.
            limits: Resource limits, applied if :attr:`layers` includes them.

        Raises:
            LauncherError: If the replacement fails as well.
            OSError: If the machine is out of processes or descriptors.
        """
        return self._spawn(self._request(limits, function=function), control)

    def _request(
        self,
        limits: Limits,
        *,
        command: Sequence[str] = (),
        function: str | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        cpu: int | None = None,
    ) -> SpawnRequest:
        return SpawnRequest(
            list(command),
            function,
            dict(environment),
            sorted(self.layers),
            limits.rlimits() if Layer.LIMITS in self.layers else [],
            cpu,
        )

    def _spawn(self, request: SpawnRequest, input_file: int) -> SandboxedProcess:
        launcher = self._connect()
        try:
            return launcher.spawn(request, input_file)
        except LauncherError as error:
            _log.critical("replacing the sandbox launcher, which kills the programs that it spawned: %s", error)
            self._disconnect(launcher)
        return self._connect().spawn(request, input_file)

    def _connect(self) -> LauncherConnection:
        """Return the current launcher; start one if there is none."""
        with self._lock:
            if self._launcher is None:
                self._launcher = LauncherConnection(self._target)
            return self._launcher

    def _disconnect(self, launcher: LauncherConnection) -> None:
        """Close a launcher. The next request starts another one, unless another thread already has."""
        with self._lock:
            if self._launcher is launcher:
                self._launcher = None
        launcher.close()
