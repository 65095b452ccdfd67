"""A decoder that can be hurt without hurting anyone: it may read one file, compute, and write to its pipes.

Three layers, each by itself enough against much of what a file could make a decoder do:

- Landlock (landlock(7)): of all files, the input can be read and the program executed; no file is written anywhere, no
  TCP connection made, no process outside signalled;
- seccomp (seccomp(2)): of the kernel's calls, those that decoding needs; none that makes a process or touches one;
- limits (setrlimit(2)): memory, processor time, open files, and no byte in any file.

:mod:`wholetrack.sandbox.launcher` puts them on; this is the service's side of it.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from wholetrack.sandbox import launcher

_log = logging.getLogger(__name__)

INPUT = launcher.INPUT
"""The number under which a program has its input."""

# ffmpeg takes 10 MiB of its own, and 40 with its threads' stacks. The index of a recording of ten hours takes 50 more,
# and one made to, of a megabyte, 600. The address space holds its program, too, which can be 170 MB.
_DATA_BYTES, _ADDRESS_SPACE_BYTES = 256 << 20, 1 << 30
_OPEN_FILES = 32
# It starts within milliseconds. A launcher that says nothing for so long is stopped, or ill.
_START_TIMEOUT_S = 5.0
_BEGIN_TIMEOUT_S = 20.0
# What a decoder that has ended left is known as soon as the launcher gets to it.
_REPORT_TIMEOUT_S = 2.0
_SILENCE_S = 0.2


class Layer(StrEnum):
    """One of the things that hold a decoder back."""

    LANDLOCK = launcher.LANDLOCK
    SECCOMP = launcher.SECCOMP
    LIMITS = launcher.LIMITS


ALL_LAYERS = frozenset(Layer)


class Sandbox:
    """Starts a program where it can do no harm.

    Args:
        program: that is started.
        wanted: layers to use where this machine has them.
        libraries: further files and folders that it may read besides its input and the system's libraries.

    Attributes:
        layers: in use.
    """

    def __init__(
        self, program: Path, *, wanted: Collection[Layer] = ALL_LAYERS, libraries: Sequence[Path] = ()
    ) -> None:
        self._arguments = [str(path) for path in (program, *libraries)]
        self._lock = threading.Lock()
        self._launcher: _Launcher | None = None
        self.layers = frozenset(Layer(layer) for layer in self._in_use().layers if layer in wanted)

    def close(self) -> None:
        """End what starts programs, and with it those that still run."""
        if self._launcher:
            self._give_up(self._launcher)

    def start(
        self,
        command: Sequence[str],
        *,
        input_file: int,
        processor_s: float,
        most_processor_s: float | None = None,
        processor: int | None = None,
    ) -> Started:
        """Start the program with pipes for its output and its words.

        Args:
            command: its path and arguments.
            input_file: descriptor of the one file that it may read, which it has under the number :data:`INPUT`.
            processor_s: after so much of a processor's time it is ended, unless it is allowed more meanwhile.
            most_processor_s: what it may be allowed; None for no more.
            processor: to stay on; None to leave that to the kernel.

        Raises:
            ConnectionError: if what starts programs was ended again and again.
            TimeoutError: if it does not answer.
            OSError: if this machine has no room for one more process or pipe.
        """
        limits = _limits(processor_s, most_processor_s or processor_s)
        order = launcher.Order(list(command), sorted(self.layers), limits, processor)
        message = json.dumps(order._asdict()).encode()
        used = self._in_use()
        try:
            return used.start(message, input_file)
        except (ConnectionError, TimeoutError) as error:
            _log.critical("what starts decoders is replaced, and decoders with it: %s", error)
            self._give_up(used)
        return self._in_use().start(message, input_file)

    def _in_use(self) -> _Launcher:
        with self._lock:
            if self._launcher is None:
                self._launcher = _Launcher(self._arguments)
            return self._launcher

    def _give_up(self, used: _Launcher) -> None:
        with self._lock:
            if self._launcher is used:
                self._launcher = None
        used.close()


def _limits(processor_s: float, most_processor_s: float) -> list[tuple[int, int, int]]:
    return [
        (resource.RLIMIT_DATA, _DATA_BYTES, _DATA_BYTES),
        (resource.RLIMIT_AS, _ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES),
        # SIGXCPU at the first, which is not what a kernel sends that runs out of memory; SIGKILL at the second.
        (resource.RLIMIT_CPU, math.ceil(processor_s), math.ceil(most_processor_s) + 1),
        (resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ]


def missing(layers: frozenset[Layer]) -> Iterator[str]:
    """What this machine lacks, and how to have it."""
    remedies = {
        Layer.LANDLOCK: "a kernel from 5.13 on that has Landlock among its security modules",
        Layer.SECCOMP: "libseccomp.so.2 (Debian: libseccomp2), and a kernel that takes filters",
    }
    yield from (f"{layer}, which needs {remedy}" for layer, remedy in remedies.items() if layer not in layers)


class Started:
    """A program that was started; a context manager that leaves nothing of it.

    Attributes:
        pid: of the process.
        output: what it writes, unbuffered.
        words: what it says, unbuffered.
    """

    def __init__(self, output: IO[bytes], words: IO[bytes], report: socket.socket, pid: int, process: int) -> None:
        self.pid = pid
        self.output = output
        self.words = words
        self._report = report
        self._process = process
        # What ends it never waits for what asks how it ended.
        self._lock, self._asking = threading.Lock(), threading.Lock()
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def poll(self) -> int | None:
        """Its status if it has ended: that of its exit, or minus the signal's number."""
        if self._status is None and _comes(self._process, 0):
            with self._asking:
                if self._status is None:
                    self._status = self._told()
        return self._status

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for it to end, and give its status.

        Raises:
            TimeoutError: if it does not within so many seconds.
        """
        if self._status is None and not _comes(self._process, timeout_s):
            raise TimeoutError
        status = self.poll()
        assert status is not None
        return status

    def allow(self, processor_s: float) -> None:
        """Let it have so much of a processor's time in all."""
        with suppress(OSError):
            self._report.send(str(math.ceil(processor_s)).encode())

    def kill(self) -> None:
        """End it at once; no other process is ever hit, however late this comes."""
        with self._lock, suppress(OSError):
            if self._process >= 0:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        """End it, wait for that, and give everything back but its words."""
        with self._report:
            self.kill()
            self.output.close()
            self.wait()
            with self._lock:
                os.close(self._process)
                self._process = -1

    def _told(self) -> int:
        """How it ended; a launcher that is not there to tell took it along, and one that is stopped cannot."""
        said = b""
        if _comes(self._report.fileno(), _REPORT_TIMEOUT_S):
            try:
                said = self._report.recv(64)
            except ConnectionResetError:
                # The launcher let go before it read what was sent last. What it told is still there.
                said = self._report.recv(64)
        return int(said) if said else -signal.SIGKILL


class _Launcher:
    """A process of :mod:`wholetrack.sandbox.launcher`.

    Attributes:
        layers: that it can put on.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", launcher.__file__, str(theirs.fileno()), *arguments]
            # In a session of its own: what a terminal sends is for the service.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
            )
        self._process = process
        self._lock = threading.Lock()
        self._started = weakref.WeakSet[Started]()
        self._finalizer = weakref.finalize(self, _end, process, self._socket)
        said = self._socket.recv(4096) if _comes(self._socket.fileno(), _BEGIN_TIMEOUT_S) else b""
        if not said:
            self.close()
            raise ConnectionError("the launcher of decoders did not begin")
        self.layers: list[str] = json.loads(said)

    def start(self, message: bytes, input_file: int) -> Started:
        """Have a program started.

        Raises:
            ConnectionError: if the launcher has ended.
            TimeoutError: if it does not answer.
            OSError: if this machine has no room for one more process or descriptor.
        """
        with ExitStack() as kept, ExitStack() as given:
            report, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            kept.enter_context(report)
            given.enter_context(theirs)
            output, to_output = _pipe(kept, given)
            words, to_words = _pipe(kept, given)
            try:
                socket.send_fds(self._socket, [message], [input_file, to_output, to_words, theirs.fileno()])
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise ConnectionError("the launcher of decoders was given up meanwhile") from error
                raise
            given.close()
            if not _comes(report.fileno(), _START_TIMEOUT_S):
                raise TimeoutError("the launcher of decoders does not answer")
            said, descriptors, *_ = socket.recv_fds(report, 64, 1)
            if not said:
                raise self._silence()
            if not descriptors:
                # It says why it could not, or had a descriptor to give for which there is no room here.
                number = -int(said) if int(said) < 0 else errno.EMFILE
                raise OSError(number, os.strerror(number))
            kept.pop_all()
            started = Started(output, words, report, int(said), descriptors[0])
        with self._lock:
            self._started.add(started)
        return started

    def _silence(self) -> OSError:
        """Why it dropped what it was given."""
        try:
            self._process.wait(_SILENCE_S)
        except subprocess.TimeoutExpired:
            return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return ConnectionError("the launcher of decoders has ended")

    def close(self) -> None:
        """End it, and what it started: that may have seen to it that it is not ended with it."""
        self._finalizer()
        with self._lock:
            left = list(self._started)
        for started in left:
            started.kill()


def _end(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    process.kill()
    process.wait()


def _pipe(kept: ExitStack, given: ExitStack) -> tuple[IO[bytes], int]:
    """A pipe's end to read from, and the number of the one to give away."""
    reading, writing = os.pipe()
    given.callback(os.close, writing)
    return kept.enter_context(os.fdopen(reading, "rb", buffering=0)), writing


def _comes(descriptor: int, timeout_s: float | None) -> bool:
    """Whether there is something to read, or an end, within so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))
