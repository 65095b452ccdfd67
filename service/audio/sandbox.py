"""A decoder that can be hurt without hurting anyone: it may read one file, compute, and write to its pipes.

Three layers, each by itself enough against much of what a file could make a decoder do:

- Landlock (landlock(7)): of all files, the input can be read and the program executed; no file is written anywhere, no
  TCP connection made, no process outside signalled;
- seccomp (seccomp(2)): no socket, no new process, none of the kernel's rarely used doors;
- limits (setrlimit(2)): memory, processor time, open files, and no byte in any file.

The first two belong to a thread and are inherited by what it starts. So every decoder is started by a thread of its own
that restricts itself first, and nothing of ours runs between fork and exec. Limits belong to a process: prlimit(1) sets
them on itself and becomes the decoder, for limits set from outside would come too late on a busy machine.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from landlockpy import AccessFS, LandlockError, Ruleset, Scope

T = TypeVar("T")
_log = logging.getLogger(__name__)

_READ, _RUN = AccessFS.READ_FILE, AccessFS.READ_FILE | AccessFS.EXECUTE
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache")
_LOADERS = ("/lib64/ld-linux-*", "/lib/ld-linux-*", "/lib/ld-musl-*", "/lib/*/ld-linux-*")

# ffmpeg's address space is 0.65 GB with its threads' stacks, of which it uses 60 MB.
_ADDRESS_SPACE_BYTES = 1 << 30
_OPEN_FILES = 32
# Starting takes a millisecond. Whoever stops a child that is not a decoder yet stops the thread that starts it, too.
_START_TIMEOUT_S = 5.0

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_MASKED_EQUAL = 7
_CLONE_VFORK, _CLONE_THREAD = 0x4000, 0x10000
# Sockets; looking into other processes; what changes the system; and doors to the kernel that no decoder needs.
_REFUSED = (
    *("socket", "socketpair", "connect", "bind", "listen", "fork"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_getfd", "kcmp"),
    *("mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "reboot", "swapon", "swapoff", "kexec_load"),
    *("init_module", "finit_module", "delete_module", "open_by_handle_at", "mknod", "mknodat"),
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "memfd_create", "execveat"),
    *("keyctl", "add_key", "request_key", "personality", "settimeofday", "clock_settime"),
)


class Layer(StrEnum):
    """One of the things that hold a decoder back."""

    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    LIMITS = "limits"


ALL_LAYERS = frozenset(Layer)


class Sandbox:
    """Starts a program where it can do no harm.

    Args:
        program: that is started; nothing else can be executed.
        wanted: layers to use where this machine has them.
        libraries: further files and folders that it may read besides its input and the system's libraries.

    Attributes:
        layers: in use.
    """

    def __init__(
        self, program: Path, *, wanted: Collection[Layer] = ALL_LAYERS, libraries: Sequence[Path] = ()
    ) -> None:
        self._prlimit = shutil.which("prlimit")
        self._readable = [*map(Path, _LIBRARIES), program.resolve().parent.parent / "lib", *libraries]
        self._runnable = [
            program.resolve(),
            *(loader for pattern in _LOADERS for loader in Path("/").glob(pattern[1:])),
            *([Path(self._prlimit).resolve()] if self._prlimit else ()),
        ]
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self._filter = _SystemCalls.load()
        there: dict[Layer, Callable[[], bool]] = {
            Layer.LANDLOCK: lambda: _holds(lambda: self._landlock(self._nothing)),
            Layer.SECCOMP: lambda: self._filter is not None and _holds(self._filter.apply),
            Layer.LIMITS: lambda: self._prlimit is not None,
        }
        self.layers = frozenset(layer for layer in Layer if layer in wanted and there[layer]())

    def start(
        self,
        command: Sequence[str],
        *,
        input_file: int,
        processor_s: float,
        prepare: Callable[[], None] = lambda: None,
    ) -> subprocess.Popen[bytes]:
        """Start the program with pipes for its output and its words.

        Args:
            command: its path and arguments.
            input_file: descriptor of the one file that it may read, which it inherits under the same number.
            processor_s: after so much of a processor's time it is ended.
            prepare: called in the thread that starts it, which gives the program what it sets for itself.
        """
        limited = [*self._limiter(processor_s), *command] if Layer.LIMITS in self.layers else command
        return _in_a_thread(lambda: self._start(limited, input_file, prepare), timeout_s=_START_TIMEOUT_S)

    def _limiter(self, processor_s: float) -> list[str]:
        """The command that limits itself and becomes the one behind it."""
        assert self._prlimit
        seconds = math.ceil(processor_s)
        return [
            self._prlimit,
            f"--as={_ADDRESS_SPACE_BYTES}",
            # SIGXCPU at the first, which is not what a kernel sends that runs out of memory; SIGKILL at the second.
            f"--cpu={seconds}:{seconds + 1}",
            f"--nofile={_OPEN_FILES}",
            "--fsize=0",
            "--core=0",
        ]

    def _start(self, command: Sequence[str], input_file: int, prepare: Callable[[], None]) -> subprocess.Popen[bytes]:
        prepare()
        if Layer.LANDLOCK in self.layers:
            self._landlock(input_file)
        if self._filter and Layer.SECCOMP in self.layers:
            self._filter.apply()
        return subprocess.Popen(
            command,
            stdin=self._nothing,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            # A child needs none of the service's environment, least of all its secrets.
            env={"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1"},
            pass_fds=(input_file,),
            start_new_session=True,
        )

    def _landlock(self, input_file: int) -> None:
        """Restrict the calling thread and what it starts."""
        with Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET) as rules:
            for path in self._runnable:
                rules.allow_path(path, _RUN)
            for path in filter(Path.exists, self._readable):
                rules.allow_path(path, _READ | AccessFS.READ_DIR if path.is_dir() else _READ)
            # To list, not to read: by the list of its own descriptors the child closes those it should not have.
            rules.allow_path("/proc", AccessFS.READ_DIR)
            rules.allow_path(f"/proc/self/fd/{input_file}", _READ)
            rules.restrict()


class _SystemCalls:
    """A filter of system calls, made by libseccomp, for the calling thread and what it starts."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._lock = threading.Lock()
        library.seccomp_init.restype = ctypes.c_void_p
        self._rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
        for name in _REFUSED:
            self._refuse(name, errno.EPERM)
        # clone3's flags cannot be seen here; told that it does not exist, libraries use clone. A clone that is neither
        # a thread nor one that waits for its execution, which finds nothing to execute, is a new process.
        self._refuse("clone3", errno.ENOSYS)
        self._refuse("clone", errno.EPERM, _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD | _CLONE_VFORK, 0))

    @classmethod
    def load(cls) -> _SystemCalls | None:
        """The filter, where libseccomp is installed."""
        try:
            return cls(ctypes.CDLL("libseccomp.so.2"))
        except OSError:
            return None

    def apply(self) -> None:
        """Restrict the calling thread for good.

        Raises:
            OSError: if the kernel does not take the filter.
        """
        with self._lock:
            failed = self._library.seccomp_load(self._rules)
        if failed:
            raise OSError(-failed, os.strerror(-failed))

    def _refuse(self, name: str, number: int, *comparisons: _Comparison) -> None:
        call = self._library.seccomp_syscall_resolve_name(name.encode())
        array = (_Comparison * len(comparisons))(*comparisons)
        # A call that this processor does not have needs no rule.
        self._library.seccomp_rule_add_array(
            self._rules, ctypes.c_uint32(_ERRNO | number), call, len(comparisons), array
        )


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``: an argument of a system call against two numbers."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def missing(layers: frozenset[Layer]) -> Iterator[str]:
    """What this machine lacks, and how to have it."""
    remedies = {
        Layer.LANDLOCK: "a kernel from 5.13 on that has Landlock among its security modules",
        Layer.SECCOMP: "libseccomp.so.2 (Debian: libseccomp2), and a kernel that takes filters",
        Layer.LIMITS: "prlimit on PATH (Debian: util-linux)",
    }
    yield from (f"{layer}, which needs {remedy}" for layer, remedy in remedies.items() if layer not in layers)


def _holds(restrict: Callable[[], None]) -> bool:
    """Whether a restriction can be put on a thread, tried on one that does nothing else."""
    try:
        _in_a_thread(restrict)
    except (OSError, LandlockError) as error:
        _log.debug("a layer of the sandbox is missing: %s", error)
        return False
    return True


def _in_a_thread(work: Callable[[], T], *, timeout_s: float | None = None) -> T:
    """Work in a thread of its own, which takes its restrictions with it when it ends.

    Args:
        work: to do.
        timeout_s: after which the thread's children are killed, on which it waits until they execute something.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits gets to see it
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="sandbox")
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive() and thread.native_id:
        _kill_children_of(thread.native_id)
        thread.join()
    return outcome.result()


def _kill_children_of(thread_id: int) -> None:
    """Kill what a thread of ours has started, found where the kernel lists it (proc(5))."""
    with suppress(OSError):
        for child in Path(f"/proc/self/task/{thread_id}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
