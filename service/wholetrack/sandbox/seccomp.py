"""The system-call filter of a sandboxed program, built with libseccomp (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os

# SCMP_ACT_ALLOW and SCMP_ACT_ERRNO from seccomp.h; the lower 16 bits of the second are the error number.
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000
# SCMP_CMP_EQ and SCMP_CMP_MASKED_EQ.
_EQUAL, _MASKED_EQUAL = 4, 7

_PR_SET_NAME = 15
_CLONE_THREAD, _CLONE_NEW_NAMESPACES = 0x00010000, 0x7E020000
# Its value on x86 and ARM (mmap(2)). The module mmap does not define it.
_MAP_GROWSDOWN = 0x0100

# What a program needs to read open files and files that Landlock allows, to manage its memory and threads, to read the
# clock, and to write to pipes.
_ALLOWED = (
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
# What a function needs besides, to exchange messages, descriptors and shared memory over the sockets that it gets. It
# can neither create sockets nor connect them.
_ALLOWED_FOR_FUNCTIONS = (
    *("sendmsg", "sendto", "recvmsg", "recvfrom", "getsockname", "getsockopt", "shutdown", "memfd_create", "ftruncate"),
)
# Descriptor flags and duplicates only: other commands of fcntl can send signals or take leases on files.
_ALLOWED_FCNTL = (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC)

# Sealing shared memory, so that the receiver can rely on its size (memfd_create(2)).
_ALLOWED_FCNTL_FOR_FUNCTIONS = (fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS)


class ArgumentComparison(ctypes.Structure):
    """A condition on one argument of a system call: libseccomp's ``struct scmp_arg_cmp``."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("operand", ctypes.c_uint64),
        ("second_operand", ctypes.c_uint64),
    )


class SystemCallFilter:
    """An allow list of system calls. Every other call fails with ``EPERM``.

    Args:
        for_functions: Whether to allow what functions need, which programs do not.

    Raises:
        OSError: If libseccomp is not installed.
    """

    def __init__(self, *, for_functions: bool = False) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._rules = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(_FAIL_WITH | errno.EPERM)))
        for name in (*_ALLOWED, *(_ALLOWED_FOR_FUNCTIONS if for_functions else ())):
            self._add(_ALLOW, name)
        for command in (*_ALLOWED_FCNTL, *(_ALLOWED_FCNTL_FOR_FUNCTIONS if for_functions else ())):
            self._add(_ALLOW, "fcntl", ArgumentComparison(1, _EQUAL, command, 0))
        # New threads, but no new processes or namespaces. The flags of clone3 are behind a pointer and cannot be
        # checked; when it fails with ENOSYS, C libraries fall back to clone.
        masked = ArgumentComparison(0, _MASKED_EQUAL, _CLONE_THREAD | _CLONE_NEW_NAMESPACES, _CLONE_THREAD)
        self._add(_ALLOW, "clone", masked)
        self._add(_FAIL_WITH | errno.ENOSYS, "clone3")
        # RLIMIT_DATA counts neither shared memory nor mappings that grow downwards, which the kernel counts as stacks.
        uncounted = mmap.MAP_SHARED | _MAP_GROWSDOWN
        self._add(_ALLOW, "mmap", ArgumentComparison(3, _MASKED_EQUAL, uncounted, 0))
        # Reading its own limits, but not setting any.
        own, without_new_limit = ArgumentComparison(0, _EQUAL, 0, 0), ArgumentComparison(2, _EQUAL, 0, 0)
        self._add(_ALLOW, "prlimit64", own, without_new_limit)
        self._add(_ALLOW, "prctl", ArgumentComparison(0, _EQUAL, _PR_SET_NAME, 0))
        # isatty() expects this error when a descriptor is not a terminal.
        self._add(_FAIL_WITH | errno.ENOTTY, "ioctl")

    def apply(self) -> None:
        """Restrict the calling thread, and the program that it executes, irrevocably.

        Raises:
            OSError: If the kernel rejects the filter.
        """
        if failed := self._library.seccomp_load(self._rules):
            raise OSError(-failed, os.strerror(-failed))

    def _add(self, action: int, name: str, *comparisons: ArgumentComparison) -> None:
        call = self._library.seccomp_syscall_resolve_name(name.encode())
        array = (ArgumentComparison * len(comparisons))(*comparisons)
        # This fails for a call that does not exist on this architecture, which then needs no rule.
        self._library.seccomp_rule_add_array(self._rules, ctypes.c_uint32(action), call, len(comparisons), array)
