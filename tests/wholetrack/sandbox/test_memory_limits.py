"""How much memory a program in the sandbox can use, however it maps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness.sandboxed_python import LIMITS, python_sandbox, run
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.layers import Layer

pytestmark = pytest.mark.timing

_MIB = 1 << 20
_DATA_MIB, _ADDRESS_SPACE_MIB = 64, 160
_LIMITS = replace(LIMITS, data_bytes=_DATA_MIB * _MIB, address_space_bytes=_ADDRESS_SPACE_MIB * _MIB)

# Each way prints how many MiB it could fill. The numbers are those of <sys/mman.h> on x86-64 and ARM.
_PREAMBLE = """
PRIVATE, SHARED, ANONYMOUS, GROWS_DOWN, STACK, MAY_MOVE = 2, 1, 0x20, 0x100, 0x20000, 1
READ, READ_WRITE, FAILED, MIB, PAGE = 1, 3, ctypes.c_void_p(-1).value, 1 << 20, 4096
c.mmap.restype = c.mremap.restype = ctypes.c_void_p
c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
c.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
c.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

def fill(flags, protect=None):
    for n in range(400):
        block = c.mmap(None, MIB, READ_WRITE, ANONYMOUS | flags, -1, 0)
        if block == FAILED:
            return n
        ctypes.memset(block, 1, MIB)
        if protect is not None:
            c.mprotect(block, MIB, protect)
    return n

def move_stack():
    # The environment is at the end of the stack, and nothing is in use half a MiB below it.
    page = (ctypes.c_void_p.in_dll(c, "environ").value & -PAGE) - MIB // 2
    ctypes.memset(page, 1, PAGE)
    for n in range(400, 0, -1):
        block = c.mremap(page, PAGE, n * MIB, MAY_MOVE)
        if block != FAILED:
            ctypes.memset(block, 1, n * MIB)
            return n
    return 0
"""
# Of these, RLIMIT_DATA counts the first two, and seccomp denies the others.
_COUNTED_OR_DENIED = {
    "private memory": "print(fill(PRIVATE))",
    "mappings for stacks": "print(fill(PRIVATE | STACK))",
    "mappings that grow downwards": "print(fill(PRIVATE | GROWS_DOWN))",
    "shared memory": "print(fill(SHARED))",
}
# RLIMIT_DATA does not count these, and seccomp cannot tell them from calls that every program makes.
_IN_THE_ADDRESS_SPACE = {
    "memory that becomes read-only": "print(fill(PRIVATE, protect=READ))",
    "memory that becomes inaccessible": "print(fill(PRIVATE, protect=0))",
    "a stack that is moved and enlarged": "print(move_stack())",
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with closing(python_sandbox()) as sandbox:
        if Layer.SECCOMP not in sandbox.layers:
            pytest.skip("this machine does not support seccomp")
        yield sandbox


@pytest.fixture
def input_file(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.touch()
    return path


def filled_mib(sandbox: Sandbox, way: str, input_file: Path) -> int:
    status, output = run(sandbox, _PREAMBLE + way, input_file, limits=_LIMITS)
    assert status == 0, output
    return int(output)


@pytest.mark.parametrize("way", _COUNTED_OR_DENIED)
def test_memory_of_every_kind_of_mapping_is_limited(sandbox: Sandbox, input_file: Path, way: str) -> None:
    assert filled_mib(sandbox, _COUNTED_OR_DENIED[way], input_file) <= _DATA_MIB


def test_private_memory_and_mappings_that_grow_downwards_share_one_limit(sandbox: Sandbox, input_file: Path) -> None:
    assert 0 < filled_mib(sandbox, "print(fill(PRIVATE) + fill(PRIVATE | GROWS_DOWN))", input_file) <= _DATA_MIB


@pytest.mark.parametrize("way", _IN_THE_ADDRESS_SPACE)
def test_memory_that_is_not_counted_as_data_is_limited_by_the_address_space(
    sandbox: Sandbox, input_file: Path, way: str
) -> None:
    assert _DATA_MIB < filled_mib(sandbox, _IN_THE_ADDRESS_SPACE[way], input_file) <= _ADDRESS_SPACE_MIB
