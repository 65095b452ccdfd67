"""Functions that run in a fork of the launcher: what they can do, and how they end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psutil
import pytest

from tests.harness import sandboxed_functions
from tests.harness.waiting import until
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.connection import LauncherError
from wholetrack.sandbox.layers import Layer
from wholetrack.sandbox.limits import Limits
from wholetrack.sandbox.process import SandboxedProcess
from wholetrack.sandbox.target import Functions

pytestmark = pytest.mark.timing

LIMITS = Limits(
    cpu_s=None,
    max_cpu_s=None,
    data_bytes=256 << 20,
    address_space_bytes=1 << 30,
    stack_bytes=8 << 20,
    open_files=64,
    file_bytes=1 << 20,
)


def functions(prepare: str = "prepare") -> Functions:
    return Functions(f"{sandboxed_functions.MODULE}:{prepare}", packages=("tests",))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with closing(Sandbox(functions())) as sandbox:
        yield sandbox


@contextmanager
def calling(sandbox: Sandbox, name: str) -> Iterator[tuple[SandboxedProcess, socket.socket]]:
    """Call a function in the sandbox; yield its process and our end of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = sandbox.spawn_function(
                f"{sandboxed_functions.MODULE}:{name}", control=theirs.fileno(), limits=LIMITS
            )
        with process.stderr, process:
            yield process, ours


def test_a_function_exchanges_messages_and_shared_memory(sandbox: Sandbox) -> None:
    with calling(sandbox, "send_shared_memory") as (process, connection):
        for message in (b"first", b"second"):
            connection.send(message)
            reply, (memory,), *_ = socket.recv_fds(connection, 100, 1)
            assert (reply, os.pread(memory, 100, 0)) == (b"here", message)
            os.close(memory)
        connection.close()
        assert process.wait(20) == 0


def test_a_function_can_neither_use_files_nor_create_processes_or_sockets(sandbox: Sandbox) -> None:
    if not {Layer.LANDLOCK, Layer.SECCOMP} <= sandbox.layers:
        pytest.skip("this machine lacks a layer of the sandbox")
    with calling(sandbox, "attempt") as (_, connection):
        assert connection.recv(1000) == b"none"


def test_a_function_inherits_nothing_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHOLETRACK_API_KEYS", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    with closing(Sandbox(functions())) as sandbox, calling(sandbox, "describe") as (_, connection):
        names, _, n_descriptors = connection.recv(1000).decode().rpartition(" ")
    assert "WHOLETRACK" not in names
    assert "OPENBLAS_NUM_THREADS" in names
    # Standard input, output, error, and the socket.
    assert n_descriptors == "4"


def test_an_error_ends_the_process_and_is_reported(sandbox: Sandbox) -> None:
    with calling(sandbox, "fail") as (process, _):
        assert process.wait(20) == 1
        assert "ValueError: deliberately" in process.stderr.read().decode()


def test_functions_end_with_their_launcher_which_is_replaced(sandbox: Sandbox) -> None:
    with calling(sandbox, "wait") as (process, _):
        launcher = psutil.Process(sandbox._connect().pid)
        launcher.kill()
        assert process.wait(20) < 0
        launcher.wait(20)
        with calling(sandbox, "send_shared_memory") as (again, connection):
            connection.close()
            assert again.wait(20) == 0


def test_many_functions_leave_nothing_behind(sandbox: Sandbox) -> None:
    launcher = psutil.Process(sandbox._connect().pid)
    before = (psutil.Process().num_fds(), launcher.num_fds())
    for _ in range(100):
        with calling(sandbox, "send_shared_memory") as (process, connection):
            connection.close()
            assert process.wait(20) == 0
    until(lambda: (psutil.Process().num_fds(), launcher.num_fds()) == before)
    assert launcher.children() == []


def test_a_launcher_with_threads_is_refused() -> None:
    with pytest.raises(LauncherError, match="starts threads, so that it cannot be used after a fork"):
        Sandbox(functions("prepare_with_a_thread"))
