"""How the service ends when its device is past helping."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_process_whose_device_is_despaired_of_ends_for_its_supervisor_to_see() -> None:
    """Even while a thread hangs: here the main one, as in a driver."""
    program = """
import threading
from service.startup import _leave_it_to_the_supervisor
_leave_it_to_the_supervisor()
print("last words", flush=True)
threading.Event().wait()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == os.EX_SOFTWARE
    assert ended.stdout == "last words\n"
