"""The launcher spawns programs and reports their end; whatever happens to it, no program is left behind."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from tests.harness.paths import PROJECT
from tests.harness.sandboxed_python import ENVIRONMENT, LIMITS, python_sandbox, run, spawned
from tests.harness.waiting import until
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.connection import LauncherError
from wholetrack.sandbox.protocol import NOT_STARTED

pytestmark = pytest.mark.timing


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with closing(python_sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def input_file(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.write_bytes(b"the input")
    return path


def launcher_of(sandbox: Sandbox) -> psutil.Process:
    (launcher,) = (p for p in psutil.Process().children() if p.pid == sandbox._connect()._process.pid)
    return launcher


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_launcher_that_ended_or_hangs_is_replaced_and_leaves_no_program(
    sandbox: Sandbox, input_file: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("wholetrack.sandbox.connection._SPAWN_TIMEOUT_S", 0.5)
    monkeypatch.setattr("wholetrack.sandbox.process._STATUS_TIMEOUT_S", 0.5)
    with spawned(sandbox, "import time; time.sleep(60)", input_file) as process:
        first = launcher_of(sandbox)
        first.send_signal(number)
        assert run(sandbox, "print('again')", input_file) == (0, "again\n")
        assert not first.is_running()
        assert launcher_of(sandbox) != first
        assert process.wait(10) == -signal.SIGKILL
    assert len(launcher_of(sandbox).children()) == 0


def test_a_launcher_that_another_thread_closed_is_replaced(sandbox: Sandbox, input_file: Path) -> None:
    sandbox._connect().close()
    assert run(sandbox, "print('again')", input_file) == (0, "again\n")


def test_a_launcher_that_cannot_be_replaced_is_an_error(
    sandbox: Sandbox, input_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher_of(sandbox).kill()
    with monkeypatch.context() as patch:
        patch.setattr("wholetrack.sandbox.connection._import_folders", list)
        with pytest.raises(LauncherError, match="No module named 'wholetrack'"):
            run(sandbox, "pass", input_file)
    assert run(sandbox, "print('again')", input_file) == (0, "again\n")


def test_a_cpu_limit_sent_after_the_end_does_not_hide_the_exit_status(sandbox: Sandbox, input_file: Path) -> None:
    with spawned(sandbox, "import time; time.sleep(0.3); raise SystemExit(3)", input_file) as process:
        launcher = launcher_of(sandbox)
        launcher.suspend()
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        process.set_cpu_limit(70)
        launcher.resume()
        assert process.wait(10) == 3


_CALLS_EXECVE_FROM_A_THREAD = """
import os, threading
again = ["x", "-I", "-S", "-c", "import time; print('again', flush=True); time.sleep(60)"]
threading.Thread(target=lambda: os.execv("/proc/self/exe", again)).start()
threading.Event().wait()
"""


def test_a_program_that_called_execve_from_a_thread_ends_with_the_launcher(sandbox: Sandbox, input_file: Path) -> None:
    """The kernel's signal at the death of a parent is set for one thread, and lost if another one calls execve."""
    with ExitStack() as stack:
        programs = [stack.enter_context(spawned(sandbox, _CALLS_EXECVE_FROM_A_THREAD, input_file)) for _ in range(2)]
        assert all(program.stdout.readline() == b"again\n" for program in programs)
        launcher_of(sandbox).kill()
        assert run(sandbox, "print('another')", input_file) == (0, "another\n")
        for program in programs:
            assert program.wait(10) == -signal.SIGKILL


def test_launcher_and_programs_end_with_the_service(input_file: Path) -> None:
    service = f"""
import sys
from pathlib import Path
from tests.harness.sandboxed_python import python_sandbox, spawned
sandbox = python_sandbox()
with spawned(sandbox, {_CALLS_EXECVE_FROM_A_THREAD!r}, Path({str(input_file)!r})) as process:
    process.stdout.readline()
    print(process.pid, sandbox._connect()._process.pid, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", service]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT, text=True) as process:
        assert process.stdout
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        process.kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_killing_a_closed_process_affects_no_other(sandbox: Sandbox, input_file: Path) -> None:
    with spawned(sandbox, "pass", input_file) as process:
        process.close()
        process.kill()
        assert process.poll() == process.wait(0)


def test_a_machine_without_free_descriptors_is_an_error(sandbox: Sandbox, input_file: Path) -> None:
    launcher = sandbox._connect()._process
    usual = resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, (4, usual[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            run(sandbox, "pass", input_file)
    finally:
        resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, usual)
    assert run(sandbox, "print('again')", input_file) == (0, "again\n")
    assert sandbox._connect()._process is launcher


def test_the_reason_why_a_program_cannot_be_executed_is_reported(sandbox: Sandbox, input_file: Path) -> None:
    with input_file.open("rb") as file:
        process = sandbox.spawn(["/nowhere/x"], input_file=file.fileno(), limits=LIMITS, environment=ENVIRONMENT)
    with process.stderr, process:
        assert process.wait(10) == NOT_STARTED
        assert process.stderr.read().startswith(b"/nowhere/x was not started: ")
