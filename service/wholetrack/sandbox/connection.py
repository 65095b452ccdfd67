"""One launcher process and the socket to it."""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from wholetrack.sandbox.process import SandboxedProcess, wait_readable
from wholetrack.sandbox.protocol import MAX_REPLY_BYTES, LauncherOptions, SpawnRequest
from wholetrack.sandbox.target import Functions, Program

_log = logging.getLogger(__name__)

_READY_TIMEOUT_S = 20.0
# Spawning takes milliseconds. A launcher that does not reply for this long is stopped or broken.
_SPAWN_TIMEOUT_S = 5.0
# How long to wait for the exit status of a launcher that has closed a socket, possibly because it is exiting.
_EXIT_TIMEOUT_S = 0.2
_STDERR_BYTES = 64 << 10

# -I ignores environment variables, the current folder and the user's site-packages. -S skips the installed packages and
# their .pth files, which can run any code and take time. Only the standard library can be imported then.
_INTERPRETER_OPTIONS = ("-I", "-S")
_BOOTSTRAP = """\
import json, sys
sys.path += json.loads(sys.argv[1])
from wholetrack.sandbox.launcher import main
main(sys.argv[2])
"""
# Functions inherit the environment and the memory of their launcher: nothing from the service's environment that may be
# secret, and no threads of the libraries for linear algebra.
_INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH")
_SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class LauncherError(Exception):
    """The launcher did not start, has ended, or does not reply."""


class LauncherConnection:
    """Starts a launcher and sends it requests.

    Args:
        target: What the launcher will spawn.

    Attributes:
        pid: Process id of the launcher.
        layers: Names of the layers that this machine supports.

    Raises:
        LauncherError: If the launcher does not become ready.
        OSError: If the Python interpreter cannot be executed, or the machine is out of processes or descriptors.
    """

    def __init__(self, target: Program | Functions) -> None:
        with ExitStack() as on_failure:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            on_failure.enter_context(self._socket)
            with theirs:
                self._process = _start_launcher(theirs, target)
            on_failure.pop_all()
        self.pid = self._process.pid
        self._lock = threading.Lock()
        self._spawned = weakref.WeakSet[SandboxedProcess]()
        self._finalizer = weakref.finalize(self, _terminate, self._process, self._socket)
        self.layers = self._receive_layers()

    def spawn(self, request: SpawnRequest, input_file: int) -> SandboxedProcess:
        """Spawn a program or a function.

        Args:
            request: What to execute, and how.
            input_file: Descriptor of its input.

        Raises:
            LauncherError: If the launcher has ended or does not reply.
            OSError: If the machine is out of processes or descriptors.
        """
        with ExitStack() as ours, ExitStack() as theirs:
            status_socket, launcher_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.enter_context(status_socket)
            theirs.enter_context(launcher_socket)
            stdout, child_stdout = _pipe(ours, theirs)
            stderr, child_stderr = _pipe(ours, theirs)
            self._send(request, [input_file, child_stdout, child_stderr, launcher_socket.fileno()])
            theirs.close()
            pid, pidfd = self._receive_pid(status_socket)
            ours.pop_all()
            process = SandboxedProcess(pid=pid, pidfd=pidfd, status_socket=status_socket, stdout=stdout, stderr=stderr)
        with self._lock:
            self._spawned.add(process)
        return process

    def close(self) -> None:
        """Kill the launcher and all programs that it spawned."""
        self._finalizer()
        # A program that called execve from a second thread is not killed by the end of the launcher.
        with self._lock:
            spawned = list(self._spawned)
        for process in spawned:
            process.kill()

    def _receive_layers(self) -> frozenset[str]:
        """Wait until the launcher is ready."""
        if not wait_readable(self._socket.fileno(), _READY_TIMEOUT_S):
            raise self._start_failure(f"was not ready within {_READY_TIMEOUT_S:g} seconds")
        if reply := self._socket.recv(MAX_REPLY_BYTES):
            return frozenset(json.loads(reply))
        try:
            status = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise self._start_failure("closed its socket") from None
        if status < 0:
            raise self._start_failure(f"was killed by signal {-status} ({signal.strsignal(-status)})")
        raise self._start_failure(f"exited with status {status}")

    def _start_failure(self, what_happened: str) -> LauncherError:
        """End the launcher and return an error with the last line that it wrote to stderr, if there is one."""
        stderr = str(self._finalizer() or "")
        last_line = stderr.rpartition("\n")[2]
        return LauncherError(f"the launcher {what_happened}{': ' if last_line else ''}{last_line}")

    def _send(self, request: SpawnRequest, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._socket, [request.encode()], descriptors)
        except ConnectionError as error:
            raise LauncherError("the launcher has ended") from error
        except OSError as error:
            if error.errno == errno.EBADF:
                raise LauncherError("the launcher was replaced by another thread") from error
            raise

    def _receive_pid(self, status_socket: socket.socket) -> tuple[int, int]:
        """Receive the process id of a spawned program and a pidfd for it."""
        if not wait_readable(status_socket.fileno(), _SPAWN_TIMEOUT_S):
            raise LauncherError(f"the launcher did not reply within {_SPAWN_TIMEOUT_S:g} seconds")
        try:
            reply, pidfds, *_ = socket.recv_fds(status_socket, MAX_REPLY_BYTES, 1)
        except ConnectionError as error:
            raise LauncherError("the launcher has ended") from error
        if not reply:
            raise self._no_reply()
        if not pidfds:
            # The launcher sent an error number, or the kernel dropped a pidfd that exceeds our RLIMIT_NOFILE.
            number = -int(reply) if int(reply) < 0 else errno.EMFILE
            raise OSError(number, os.strerror(number))
        return int(reply), pidfds[0]

    def _no_reply(self) -> LauncherError | OSError:
        """Return why the launcher closed a status socket without a reply."""
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # It is still running: the kernel dropped descriptors that exceed its RLIMIT_NOFILE.
            return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return LauncherError("the launcher has ended")


def _start_launcher(connection: socket.socket, target: Program | Functions) -> subprocess.Popen[bytes]:
    if isinstance(target, Program):
        options = LauncherOptions(connection.fileno(), str(target.path), list(map(str, target.libraries)), prepare=None)
        folders, environment = _import_folders(), None
    else:
        options = LauncherOptions(connection.fileno(), None, [], prepare=target.prepare)
        folders = _import_folders(*target.packages)
        environment = _SINGLE_THREAD | {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    command = [
        *(sys.executable, *_INTERPRETER_OPTIONS, *(["-B"] if sys.dont_write_bytecode else [])),
        *("-c", _BOOTSTRAP, json.dumps(folders), json.dumps(options._asdict())),
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment,
        pass_fds=(connection.fileno(),),
        # A signal that a terminal sends to its process group, such as Ctrl-C, is handled by the service alone.
        start_new_session=True,
    )


def _import_folders(*packages: str) -> list[str]:
    """Return the folders from which this process imports the launcher's packages, however they are installed.

    The launcher gets these folders only, so it imports the same code, whether that comes from a virtual environment,
    ``pip install --target`` with PYTHONPATH, an editable installation or the system's site-packages. In its search path
    they come after the standard library, so their modules cannot shadow those of the standard library.
    """
    folders = [Path(__file__).absolute().parents[2]]
    for name in ("landlockpy", *packages):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            is_package = spec.submodule_search_locations is not None
            folders.append(Path(spec.origin).absolute().parents[1 if is_package else 0])
    return [str(folder) for folder in dict.fromkeys(folders)]


def _terminate(process: subprocess.Popen[bytes], connection: socket.socket) -> str:
    """Kill the launcher, and log and return what it wrote to stderr."""
    connection.close()
    process.kill()
    process.wait()
    assert process.stderr is not None
    with process.stderr:
        # Do not wait for an end of file: a child that has not executed its program yet holds the pipe open.
        os.set_blocking(process.stderr.fileno(), False)
        text = (process.stderr.read(_STDERR_BYTES) or b"").decode(errors="replace").strip()
    if text:
        _log.error("the sandbox launcher wrote to stderr: %s", text)
    return text


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[IO[bytes], int]:
    """Open a pipe and return its unbuffered read end and the descriptor of its write end."""
    read_end, write_end = os.pipe()
    theirs.callback(os.close, write_end)
    return ours.enter_context(os.fdopen(read_end, "rb", buffering=0)), write_end
