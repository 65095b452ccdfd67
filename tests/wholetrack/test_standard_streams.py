"""Programs that are started without standard streams, as some supervisors do."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CLOSE_AND_RUN = """
import os, sys
for descriptor in map(int, sys.argv[1].split(",")):
    os.close(descriptor)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""

_REPORT = """
import os, sys
from wholetrack.standard_streams import open_closed_streams
open_closed_streams()
print("to standard output")
print("to standard error", file=sys.stderr)
assert sys.stdin.read() == ""
assert os.open("/", os.O_RDONLY) > 2
assert all(os.get_inheritable(descriptor) for descriptor in range(3))
"""


@pytest.mark.parametrize("closed", ["0", "1", "2", "0,1,2"])
def test_closed_streams_are_connected_to_nothing(closed: str) -> None:
    command = [sys.executable, "-c", _CLOSE_AND_RUN, closed, _REPORT]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if "1" in closed else "to standard output\n")
    assert done.stderr == ("" if "2" in closed else "to standard error\n")


def test_a_command_needs_no_standard_streams() -> None:
    program = "from wholetrack.cli.app import main; import sys; sys.argv = ['wholetrack', 'settings']; main()"
    command = [sys.executable, "-c", _CLOSE_AND_RUN, "0,1", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
