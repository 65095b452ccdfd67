"""The launcher: a process with a single thread that forks a child for each program or function.

Landlock, seccomp, resource limits and CPU affinity can only be set by a process on itself, so a child has to set them
between fork and exec. A process with threads must not run Python there (fork(2)), and forking a service with loaded
models would be slow. Therefore the service starts this process and sends it requests; see
:mod:`wholetrack.sandbox.protocol`.

It must start quickly, so it imports only the standard library, landlockpy and its sibling modules. One that spawns
functions also imports the module that they are in, once, so that its children share the memory and need no files.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from wholetrack.sandbox.child import Descriptors, Restrictions, become_program
from wholetrack.sandbox.landlock import FileAccessRules
from wholetrack.sandbox.layers import Layer
from wholetrack.sandbox.protocol import (
    LAUNCHER_NAME,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    N_DESCRIPTORS,
    LauncherOptions,
    SpawnRequest,
)
from wholetrack.sandbox.seccomp import SystemCallFilter

_PR_SET_NAME = 15


class Child(NamedTuple):
    """A running program.

    Attributes:
        pid: Its process id.
        pidfd: A descriptor that refers to the process and becomes readable when it ends.
        status_socket: Receives new CPU limits from the service; the exit status is sent to it.
        max_cpu_s: The highest CPU limit that the service can set, in seconds; None if CPU time is not limited.
    """

    pid: int
    pidfd: int
    status_socket: socket.socket
    max_cpu_s: int | None


class Launcher:
    """Spawns the requested programs and reports how each of them ended.

    Args:
        service: Socket to the service.
        restrictions: Applied to every program, as far as its request asks for them.
    """

    def __init__(self, service: socket.socket, restrictions: Restrictions) -> None:
        self._pid = os.getpid()
        self._service = service
        self._restrictions = restrictions
        self._selector = selectors.DefaultSelector()
        self._selector.register(service, selectors.EVENT_READ)
        self._children = set[Child]()

    def serve(self) -> None:
        """Process requests until the service closes its socket, then kill all programs."""
        try:
            self._serve()
        finally:
            # PR_SET_PDEATHSIG does the same, except for a program that called execve from a second thread.
            for child in self._children:
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def _serve(self) -> None:
        while True:
            for ready, _ in self._selector.select():
                if ready.fileobj is self._service:
                    message, descriptors, *_ = socket.recv_fds(self._service, MAX_REQUEST_BYTES, N_DESCRIPTORS)
                    if not message:
                        return
                    self._receive_request(message, descriptors)
                else:
                    handle, child = ready.data
                    handle(child)

    def _receive_request(self, message: bytes, descriptors: list[int]) -> None:
        if len(descriptors) == N_DESCRIPTORS:
            *given, status_socket = descriptors
            self._spawn(SpawnRequest.decode(message), Descriptors(*given), socket.socket(fileno=status_socket))
        else:
            # The kernel drops descriptors that exceed RLIMIT_NOFILE. When the last copy of the status socket is
            # closed, the service reads an end of file instead of a reply.
            for descriptor in descriptors:
                os.close(descriptor)

    def _spawn(self, request: SpawnRequest, descriptors: Descriptors, status_socket: socket.socket) -> None:
        try:
            pid = os.fork()
            if pid == 0:
                become_program(request, descriptors, self._restrictions, launcher_pid=self._pid)
            child = self._watch(pid, status_socket, request.max_cpu_s)
            self._selector.register(status_socket, selectors.EVENT_READ, (self._receive_cpu_limit, child))
            with suppress(OSError):
                socket.send_fds(status_socket, [str(pid).encode()], [child.pidfd])
        except OSError as error:
            with suppress(OSError), status_socket:
                status_socket.send(str(-(error.errno or errno.EAGAIN)).encode())
        for descriptor in descriptors:
            os.close(descriptor)

    def _watch(self, pid: int, status_socket: socket.socket, max_cpu_s: int | None) -> Child:
        """Watch for the end of a child, or kill the child if that is not possible."""
        try:
            child = Child(pid, os.pidfd_open(pid), status_socket, max_cpu_s)
            self._selector.register(child.pidfd, selectors.EVENT_READ, (self._reap, child))
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children.add(child)
        return child

    def _receive_cpu_limit(self, child: Child) -> None:
        """Set the CPU limit that the service sent, or kill the child if the service closed the socket."""
        if child.status_socket.fileno() < 0:
            # The child was reaped by an earlier event of the same select call.
            return
        message = b""
        with suppress(OSError):
            message = child.status_socket.recv(MAX_REPLY_BYTES)
        if not message:
            with suppress(KeyError):
                self._selector.unregister(child.status_socket)
            with suppress(OSError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        elif child.max_cpu_s is not None:
            limits = (min(int(message), child.max_cpu_s), child.max_cpu_s)
            resource.prlimit(child.pid, resource.RLIMIT_CPU, limits)

    def _reap(self, child: Child) -> None:
        """Collect the exit status of a child that has ended, and report it."""
        _, status = os.waitpid(child.pid, 0)
        self._children.discard(child)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        with suppress(KeyError, ValueError):
            self._selector.unregister(child.status_socket)
        with suppress(OSError), child.status_socket:
            child.status_socket.send(str(os.waitstatus_to_exitcode(status)).encode())


def supported_layers(restrictions: Restrictions) -> list[Layer]:
    """Return the layers that work on this machine. Each of them is tried in a child process."""
    layers = [Layer.LIMITS]
    null = os.open(os.devnull, os.O_RDONLY)
    if _works(lambda: restrictions.files.apply(null)):
        layers.append(Layer.LANDLOCK)
    os.close(null)
    if restrictions.system_calls is not None and _works(restrictions.system_calls.apply):
        layers.append(Layer.SECCOMP)
    return layers


def main(options: str) -> None:
    """Run the launcher.

    Args:
        options: The :class:`LauncherOptions` as a JSON object.
    """
    given = LauncherOptions(**json.loads(options))
    ctypes.CDLL(None).prctl(_PR_SET_NAME, LAUNCHER_NAME.encode())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    service = socket.socket(fileno=given.socket_fd)
    if given.prepare:
        _prepare(given.prepare)
    program = None if given.program is None else Path(given.program)
    restrictions = Restrictions(
        FileAccessRules(program, list(map(Path, given.libraries))),
        _system_call_filter(for_functions=given.prepare is not None),
    )
    service.send(json.dumps(supported_layers(restrictions)).encode())
    Launcher(service, restrictions).serve()


def _prepare(function: str) -> None:
    """Import the module of a function and call the function, for all children.

    Raises:
        SystemExit: If that starts a thread. A process with threads must not run Python after a fork (fork(2)).
    """
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)()
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - only their number matters
        raise SystemExit(f"{module} starts threads, so that it cannot be used after a fork")
    # The garbage collector would write to objects, and thereby copy the memory that children share.
    gc.collect()
    gc.freeze()


def _system_call_filter(*, for_functions: bool) -> SystemCallFilter | None:
    try:
        return SystemCallFilter(for_functions=for_functions)
    except OSError:
        return None


def _works(restrict: Callable[[], None]) -> bool:
    """Return whether a child can apply a restriction to itself."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            restrict()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
