"""As PID 1, or as a subreaper, the service collects the exit statuses of the processes that it inherits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness.paths import PROJECT
from tests.harness.waiting import until
from wholetrack.server import orphans
from wholetrack.server.orphans import OrphanReaper, reaping_orphans

pytestmark = pytest.mark.timing

# Runs in a process of its own, because there is no way back: inherits three programs from a launcher that is killed.
_SUBREAPER = """
import ctypes, json, os, signal, subprocess, sys
from contextlib import ExitStack
from pathlib import Path
import psutil
from tests.harness.sandboxed_python import python_sandbox, run, spawned
from tests.harness.waiting import until
from wholetrack.server.orphans import OrphanReaper, reaping_orphans

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
sandbox, input_file = python_sandbox(), Path("/dev/null")

def zombies():
    children = psutil.Process().children()
    return {child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE}

stack = ExitStack()
sleep = "import time; time.sleep(600)"
programs = {stack.enter_context(spawned(sandbox, sleep, input_file)).pid for _ in range(3)}
launcher = sandbox._connect()._process
other = subprocess.Popen(["/bin/sh", "-c", "exit 7"])
os.kill(launcher.pid, signal.SIGKILL)
until(lambda: zombies() == programs | {launcher.pid, other.pid})
"""


def run_as_subreaper(program: str) -> Any:
    """Run a program after :data:`_SUBREAPER`, and return what it prints, as JSON."""
    command = [sys.executable, "-c", _SUBREAPER + program]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_inherited_processes_are_collected_and_own_ones_are_left_to_their_owners() -> None:
    result = run_as_subreaper("""
own = {other.pid}
reaper = OrphanReaper(lambda pid: pid in own or sandbox.owns(pid))
reaper.collect()
after_one = zombies() == programs | {launcher.pid, other.pid}
reaper.collect()
after_two = zombies() == {launcher.pid, other.pid}
again = run(sandbox, "print('again')", input_file)
print(json.dumps([after_one, after_two, again, launcher.returncode, other.wait(), len(zombies())]))
""")
    assert result == [True, True, [0, "again\n"], -9, 7, 0]


def test_the_thread_collects_them() -> None:
    result = run_as_subreaper("""
own = {other.pid}
with reaping_orphans(lambda pid: pid in own or sandbox.owns(pid), every_s=0.01):
    until(lambda: zombies() == {launcher.pid, other.pid})
stack.close()
print(json.dumps([launcher.wait(), other.wait()]))
""")
    assert result == [-9, 7]


def test_a_status_that_is_collected_soon_is_not_taken_away() -> None:
    reaper = OrphanReaper(lambda _: False)
    for status in (1, 2, 3):
        child = subprocess.Popen(["/bin/sh", "-c", f"exit {status}"])
        until(lambda pid=child.pid: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)  # type: ignore[misc]
        reaper.collect()
        # Popen returns 0 if somebody else has collected the status.
        assert child.wait() == status


def test_a_process_that_inherits_nothing_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OrphanReaper, "collect", lambda _: pytest.fail("there is a thread"))
    with reaping_orphans(lambda _: False, every_s=0.0):
        assert not [name for name in Path("/proc/self/task").glob("*/comm") if name.read_text() == "orphans\n"]
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert orphans._inherits_orphans()
