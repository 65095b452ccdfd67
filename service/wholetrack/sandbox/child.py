"""The steps of a forked child: restrict itself, then execute the program or call the function."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from wholetrack.sandbox.landlock import FileAccessRules
from wholetrack.sandbox.layers import Layer
from wholetrack.sandbox.protocol import INPUT_FD, NOT_STARTED, SpawnRequest
from wholetrack.sandbox.seccomp import SystemCallFilter

_PR_SET_PDEATHSIG = 1
_MAX_DESCRIPTORS = 1 << 20

# Lower than that of programs, of which each serves one file only.
_PROGRAM_OOM_SCORE, _FUNCTION_OOM_SCORE = 1000, 500

# Loaded before the fork.
_libc = ctypes.CDLL(None, use_errno=True)


class Descriptors(NamedTuple):
    """Descriptors that the launcher passes on to the program."""

    input_file: int
    stdout: int
    stderr: int


class Restrictions(NamedTuple):
    """What the launcher prepares once for all children.

    Attributes:
        files: Rules of the Landlock layer.
        system_calls: Filter of the seccomp layer; None if libseccomp is not installed.
    """

    files: FileAccessRules
    system_calls: SystemCallFilter | None


def become_program(
    request: SpawnRequest, descriptors: Descriptors, restrictions: Restrictions, *, launcher_pid: int
) -> NoReturn:
    """Turn the calling process, a fresh fork of the launcher, into the requested program, or call the function in it.

    If a step fails, the process exits with :data:`NOT_STARTED`; it never returns to the launcher's event loop.
    """
    try:
        _detach(launcher_pid, oom_score=_FUNCTION_OOM_SCORE if request.function else _PROGRAM_OOM_SCORE)
        set_scheduling(request.cpu)
        _install(descriptors)
        if not request.function:
            # Python ignores these signals, and ignored signals stay ignored across exec.
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored, signal.SIG_DFL)
        for kind, soft, hard in request.rlimits:
            resource.setrlimit(kind, (soft, hard))
        if Layer.LANDLOCK in request.layers:
            restrictions.files.apply(INPUT_FD)
        # Last, because the filter forbids most of the steps before it.
        if Layer.SECCOMP in request.layers:
            assert restrictions.system_calls is not None
            restrictions.system_calls.apply()
        if request.function:
            _call(request.function)
        os.execve(request.command[0], request.command, request.environment)  # noqa: S606 - deliberately without a shell
    except BaseException as error:  # noqa: BLE001 - no exception may escape into the launcher's event loop
        with suppress(OSError):
            os.write(2, f"{request.function or request.command[0]} was not started: {error}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def set_scheduling(cpu: int | None) -> None:
    """Schedule the calling process as a batch job (sched(7)), pinned to ``cpu`` unless that is None.

    Does nothing without the permission to do so.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})


def _call(function: str) -> NoReturn:
    """Call a function of a module that has been imported, and exit: with status 1 if it raises an error."""
    module, _, name = function.partition(":")
    called = getattr(sys.modules[module], name)
    try:
        called(INPUT_FD)
    except BaseException:  # noqa: BLE001 - no exception may escape into the launcher's event loop
        with suppress(OSError):
            os.write(2, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


def _detach(launcher_pid: int, *, oom_score: int) -> None:
    """Leave the launcher's session, but end when it ends, and be killed before the service when memory runs out."""
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != launcher_pid:
        # The launcher ended before the line above took effect.
        os._exit(1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(oom_score))


def _install(descriptors: Descriptors) -> None:
    """Move the program's descriptors to the numbers that it expects, and close all others."""
    null = os.open(os.devnull, os.O_RDONLY)
    wanted = (null, descriptors.stdout, descriptors.stderr, descriptors.input_file)
    # Two steps, so that no descriptor is overwritten before it is moved.
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 16) for descriptor in wanted]
    for number, descriptor in enumerate(moved):
        os.dup2(descriptor, number)
    os.closerange(INPUT_FD + 1, _MAX_DESCRIPTORS)
