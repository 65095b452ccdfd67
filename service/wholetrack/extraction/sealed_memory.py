"""Memory that another process has written and can no longer change (memfd_create(2))."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
"""Nobody can change the memory any more, so that the receiver can rely on its size and its contents."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (*(ctypes.c_void_p, ctypes.c_size_t), *3 * (ctypes.c_int,), ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


class MessageError(Exception):
    """A message does not follow the protocol, or reports an error."""


class SealedMemory:
    """A read-only mapping of sealed memory, for ``numpy.asarray``. It ends when no array refers to it.

    Unlike a mapping of the module ``mmap``, it does not hold a descriptor, of which a service has a limited number.

    Args:
        memory: A descriptor of the memory.
        size: Its size in bytes, at least 1.

    Raises:
        MessageError: If it is not sealed, or has another size.
        OSError: If it cannot be mapped.
    """

    def __init__(self, memory: int, size: int) -> None:
        self._address: int | None = None
        self._size = size
        try:
            seals = fcntl.fcntl(memory, fcntl.F_GET_SEALS)
        except OSError as error:
            raise MessageError("the memory cannot be sealed") from error
        if seals & SEALS != SEALS or os.fstat(memory).st_size != size:
            raise MessageError("the memory is not sealed, or has another size")
        # Private, because older kernels refuse shared mappings of sealed memory.
        flags = mmap.MAP_PRIVATE | mmap.MAP_POPULATE
        address = _libc.mmap(None, size, mmap.PROT_READ, flags, memory, 0)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._address = address
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address, True)}

    def __del__(self) -> None:
        if self._address is not None:
            _libc.munmap(self._address, self._size)
