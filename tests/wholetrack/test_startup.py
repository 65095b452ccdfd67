"""How the service ends when its device is past helping."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest


def test_a_process_whose_device_is_despaired_of_ends_for_its_supervisor_to_see() -> None:
    """Even while a thread hangs: here the main one, as in a driver."""
    program = """
import threading
from wholetrack.startup import _leave_it_to_the_supervisor
_leave_it_to_the_supervisor()
print("last words", flush=True)
threading.Event().wait()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == os.EX_SOFTWARE
    assert ended.stdout == "last words\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator has arenas")
def test_threads_share_two_arenas_of_the_allocator() -> None:
    program = """
import ctypes, threading
from wholetrack.startup import limit_malloc_arenas
assert limit_malloc_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(9)
def allocate():
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
together.wait()
for thread in threads: thread.join()
libc.malloc_stats()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr.count("Arena ") == 2
