"""Starts decoders where they can do no harm: a program of its own, small and of one thread, which forks for each.

Landlock, seccomp, limits and the place among processors belong to whoever sets them on itself. So a child has to do
that between fork and exec, which a process with threads must not (fork(2)), and a service with models would do slowly.
What a decoder does not need is refused by a filter that is put on last and that knows calls by name: nothing that
starts a process, touches another, or reaches beyond its own descriptors is among them.

Asked on a socket, a message for each decoder; the service is gone when the socket is closed, and with it every decoder.
Imports nothing of the service: it must start in a moment.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from landlockpy import AccessFS, LandlockError, Ruleset, Scope

INPUT = 3
"""The number under which a decoder has the one file that it may read."""
NAME = b"launcher"
"""What the system calls it."""
NOT_STARTED = 127
"""The status of a child that could not become what it was to be."""
LANDLOCK, SECCOMP, LIMITS = "landlock", "seccomp", "limits"

_MESSAGE_BYTES = 64 << 10
_DESCRIPTORS = 4
_MOST_DESCRIPTORS = 1 << 20
_READ, _RUN = AccessFS.READ_FILE, AccessFS.READ_FILE | AccessFS.EXECUTE
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache")
_LOADERS = ("/lib64/ld-linux-*", "/lib/ld-linux-*", "/lib/ld-musl-*", "/lib/*/ld-linux-*")

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7
_CLONE_THREAD, _NEW_NAMESPACES = 0x00010000, 0x7E020000

# What decoding needs, of files that are open or that Landlock lets it open, its memory, its threads and the time.
_NEEDED = (
    *("read", "readv", "pread64", "preadv", "write", "writev", "close", "close_range", "lseek", "fadvise64"),
    *("open", "openat", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd", "getdents64"),
    *("stat", "fstat", "lstat", "newfstatat", "statx", "fstatfs", "dup", "dup2", "dup3"),
    *("brk", "munmap", "mprotect", "mremap", "madvise", "membarrier"),
    *("execve", "exit", "exit_group", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "futex"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("sched_yield", "sched_getaffinity", "getcpu", "getrlimit", "getrusage", "sysinfo", "uname"),
    *("getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time"),
    *("poll", "ppoll", "select", "pselect6", "getrandom"),
)
# Of fcntl, nothing that sends a signal or leases a file: only flags, and a copy of a descriptor.
_FCNTL = (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC)


class Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``: an argument of a system call against two numbers."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Calls:
    """A list of the system calls that are allowed, made by libseccomp; every other is not permitted.

    Raises:
        OSError: if libseccomp is not installed.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._rules = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(_REFUSE | errno.EPERM)))
        for name in _NEEDED:
            self._add(_ALLOW, name)
        for command in _FCNTL:
            self._add(_ALLOW, "fcntl", Comparison(1, _EQUAL, command, 0))
        # Threads, and nothing else that is new. The flags of clone3 cannot be seen: told that it does not exist,
        # libraries use clone.
        self._add(_ALLOW, "clone", Comparison(0, _MASKED_EQUAL, _CLONE_THREAD | _NEW_NAMESPACES, _CLONE_THREAD))
        self._add(_REFUSE | errno.ENOSYS, "clone3")
        # No shared memory, which no limit counts.
        self._add(_ALLOW, "mmap", Comparison(3, _MASKED_EQUAL, mmap.MAP_SHARED, 0))
        # To ask for its own limits, not to set any; and to name its threads.
        self._add(_ALLOW, "prlimit64", Comparison(0, _EQUAL, 0, 0), Comparison(2, _EQUAL, 0, 0))
        self._add(_ALLOW, "prctl", Comparison(0, _EQUAL, _PR_SET_NAME, 0))
        # No terminal is a terminal here.
        self._add(_REFUSE | errno.ENOTTY, "ioctl")

    def apply(self) -> None:
        """Restrict the calling thread and what it starts, for good.

        Raises:
            OSError: if the kernel does not take the list.
        """
        if failed := self._library.seccomp_load(self._rules):
            raise OSError(-failed, os.strerror(-failed))

    def _add(self, action: int, name: str, *comparisons: Comparison) -> None:
        call = self._library.seccomp_syscall_resolve_name(name.encode())
        array = (Comparison * len(comparisons))(*comparisons)
        # A call that this processor does not have needs no rule.
        self._library.seccomp_rule_add_array(self._rules, ctypes.c_uint32(action), call, len(comparisons), array)


class Files:
    """What Landlock leaves of the file system: one file to read, one program to run, the system's libraries.

    Args:
        program: that is run.
        libraries: further files and folders that it may read.
    """

    def __init__(self, program: Path, libraries: Sequence[Path] = ()) -> None:
        real = program.resolve()
        readable = [*map(Path, _LIBRARIES), real.parent.parent / "lib", *libraries]
        loaders = [loader for pattern in _LOADERS for loader in Path("/").glob(pattern[1:])]
        self._rules = [(path, _RUN) for path in (real, *loaders)]
        self._rules += [(p, _READ | AccessFS.READ_DIR if p.is_dir() else _READ) for p in readable if p.exists()]

    def apply(self, descriptor: int) -> None:
        """Restrict the calling thread and what it starts, for good.

        Args:
            descriptor: of the file that may be read.

        Raises:
            LandlockError: if the kernel has no Landlock.
        """
        with Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET) as rules:
            for path, access in self._rules:
                rules.allow_path(path, access)
            rules.allow_path(f"/proc/self/fd/{descriptor}", _READ)
            rules.restrict()


class Order(NamedTuple):
    """What the service wants started.

    Attributes:
        command: path and arguments.
        layers: to put on it, of those that are there.
        limits: by number of the resource: soft and hard.
        processor: to stay on; None to leave that to the kernel.
    """

    command: list[str]
    layers: list[str]
    limits: list[tuple[int, int, int]]
    processor: int | None

    @property
    def most_processor_s(self) -> int | None:
        """The hard limit of a processor's time, if limits are to be put on it."""
        hard = {kind: most for kind, _, most in self.limits}
        return hard.get(resource.RLIMIT_CPU) if LIMITS in self.layers else None


class Child(NamedTuple):
    """A decoder that runs.

    Attributes:
        pid: its number.
        process: the descriptor that stands for it.
        told: where its end is told, and what it may have more of comes.
        most_s: of a processor's time; None if that is not limited.
    """

    pid: int
    process: int
    told: socket.socket
    most_s: int | None


class Launcher:
    """Starts what it is asked to, and tells how each ended."""

    def __init__(self, service: socket.socket, files: Files) -> None:
        self._pid = os.getpid()
        self._service = service
        self._files = files
        self._calls = _if_there(Calls)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.prctl(_PR_SET_NAME, NAME)
        self._selector = selectors.DefaultSelector()
        self._selector.register(service, selectors.EVENT_READ)
        self._children = set[Child]()

    def layers(self) -> list[str]:
        """Those that this machine has, each tried by a child."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        tried: Mapping[str, Callable[[], None]] = {
            LANDLOCK: lambda: self._files.apply(nothing),
            SECCOMP: self._restrict_calls,
            LIMITS: lambda: None,
        }
        found = [layer for layer, restrict in tried.items() if _works(restrict)]
        os.close(nothing)
        return found

    def serve(self) -> None:
        """Until the service is gone, and every child with it."""
        try:
            self._serve()
        finally:
            # The kernel does it, too (PDEATHSIG), but not for a thread that took its process over by execve.
            for child in self._children:
                signal.pidfd_send_signal(child.process, signal.SIGKILL)

    def _serve(self) -> None:
        while True:
            for ready, _ in self._selector.select():
                if ready.fileobj is self._service:
                    message, descriptors, *_ = socket.recv_fds(self._service, _MESSAGE_BYTES, _DESCRIPTORS)
                    if not message:
                        return
                    self._take(message, descriptors)
                else:
                    react, child = ready.data
                    react(child)

    def _take(self, message: bytes, descriptors: list[int]) -> None:
        if len(descriptors) == _DESCRIPTORS:
            document: dict[str, Any] = json.loads(message)
            self._start(Order(**document), *descriptors)
            return
        # The kernel drops those for which there is no room; the service sees that nothing is said.
        for descriptor in descriptors:
            os.close(descriptor)

    def _start(self, order: Order, file: int, output: int, words: int, report: int) -> None:
        told = socket.socket(fileno=report)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(order, file, output, words)
            child = self._watched(pid, told, order.most_processor_s)
            self._selector.register(told, selectors.EVENT_READ, (self._allow_more, child))
            with suppress(OSError):
                socket.send_fds(told, [str(pid).encode()], [child.process])
        except OSError as error:
            with suppress(OSError), told:
                told.send(str(-(error.errno or errno.EAGAIN)).encode())
        for descriptor in (file, output, words):
            os.close(descriptor)

    def _watched(self, pid: int, told: socket.socket, most_s: int | None) -> Child:
        """A child whose end will be told; one that cannot be watched is ended."""
        try:
            child = Child(pid, os.pidfd_open(pid), told, most_s)
            self._selector.register(child.process, selectors.EVENT_READ, (self._reap, child))
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children.add(child)
        return child

    def _allow_more(self, child: Child) -> None:
        """Give a decoder that gets on more of a processor's time, as the service says, or end one that it lets go."""
        if child.told.fileno() < 0:
            # It was reaped a moment ago.
            return
        said = b""
        with suppress(OSError):
            said = child.told.recv(64)
        if not said:
            with suppress(KeyError):
                self._selector.unregister(child.told)
            with suppress(OSError):
                signal.pidfd_send_signal(child.process, signal.SIGKILL)
        elif child.most_s is not None:
            resource.prlimit(child.pid, resource.RLIMIT_CPU, (min(int(said), child.most_s), child.most_s))

    def _reap(self, child: Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._children.discard(child)
        self._selector.unregister(child.process)
        os.close(child.process)
        with suppress(KeyError, ValueError):
            self._selector.unregister(child.told)
        with suppress(OSError), child.told:
            child.told.send(str(os.waitstatus_to_exitcode(status)).encode())

    def _become(self, order: Order, file: int, output: int, words: int) -> None:
        """In the child, for good: what it is to have, what it is not to have, and then the program."""
        try:
            os.setsid()
            self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
            if os.getppid() != self._pid:
                # The launcher ended before that could be asked for.
                os._exit(1)
            # Where memory runs out, this is what can be spared.
            with suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text("1000")
            settle(order.processor)
            nothing = os.open(os.devnull, os.O_RDONLY)
            # Out of the way of the numbers that they are to have.
            kept = [fcntl.fcntl(each, fcntl.F_DUPFD, 16) for each in (nothing, output, words, file)]
            for number, each in enumerate(kept):
                os.dup2(each, number)
            os.closerange(INPUT + 1, _MOST_DESCRIPTORS)
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored, signal.SIG_DFL)
            if LIMITS in order.layers:
                for kind, soft, hard in order.limits:
                    resource.setrlimit(kind, (soft, hard))
            if LANDLOCK in order.layers:
                self._files.apply(INPUT)
            # A child needs none of the service's environment, least of all its secrets. glibc's arenas for threads
            # would take address space by the 64 MiB.
            environment = {"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1", "MALLOC_ARENA_MAX": "1"}
            if SECCOMP in order.layers:
                self._restrict_calls()
            os.execve(order.command[0], order.command, environment)  # noqa: S606 - no shell is the point
        except BaseException as error:  # noqa: BLE001 - it must end here, whatever it is
            with suppress(OSError):
                os.write(2, f"launcher: {error}\n".encode())
        finally:
            os._exit(NOT_STARTED)

    def _restrict_calls(self) -> None:
        if self._calls is None:
            raise OSError(errno.ENOSYS, "libseccomp is not installed")
        self._calls.apply()


def settle(processor: int | None) -> None:
    """Run as a batch job (sched(7)), on that processor if one is given; without the right to, nothing happens.

    ffmpeg's demuxer, decoder, filters and muxer are threads that hand frames of some milliseconds to each other. Spread
    over processors, they spend more on waking each other than on decoding; ``python -m bench.decoding`` measures it.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        if processor is not None:
            os.sched_setaffinity(0, {processor})


def _if_there(make: Callable[[], Calls]) -> Calls | None:
    try:
        return make()
    except OSError:
        return None


def _works(restrict: Callable[[], None]) -> bool:
    """Whether a restriction can be put on, tried by a child that does nothing else."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(OSError, LandlockError):
            restrict()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def main() -> None:
    """Serve on the socket whose descriptor is the first argument; the program and further libraries are the others."""
    descriptor, program, *libraries = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    service = socket.socket(fileno=int(descriptor))
    launcher = Launcher(service, Files(Path(program), [Path(each) for each in libraries]))
    service.send(json.dumps(launcher.layers()).encode())
    launcher.serve()


if __name__ == "__main__":
    main()
