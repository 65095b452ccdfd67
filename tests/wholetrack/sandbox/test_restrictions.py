"""What a program in the sandbox can do, and what each layer prevents."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness.sandboxed_python import ENVIRONMENT, LIMITS, PYTHON, python_sandbox, run, spawned
from tests.harness.waiting import until
from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.layers import ALL_LAYERS, Layer, missing_layers
from wholetrack.sandbox.protocol import INPUT_FD

pytestmark = pytest.mark.timing


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with closing(python_sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def input_file(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.write_bytes(b"the input")
    return path


def test_this_machine_supports_all_layers(sandbox: Sandbox) -> None:
    """On a kernel without Landlock or a host without libseccomp, some of the tests below are skipped."""
    if missing := list(missing_layers(sandbox.layers)):
        pytest.xfail(f"not supported here: {missing}")
    assert sandbox.layers == ALL_LAYERS


def test_the_input_can_be_read(sandbox: Sandbox, input_file: Path) -> None:
    for program in ("print(os.read(fd, 100))", "print(open(f'/dev/fd/{fd}', 'rb').read())"):
        assert run(sandbox, program, input_file) == (0, "b'the input'\n")


_CHECKED = "(lambda result: result >= 0 or sys.exit(os.strerror(ctypes.get_errno())))"

# What is attempted, and the layer that prevents it. The arguments are the path of another file, the port of a listening
# socket, and the process id of the test.
ATTEMPTS = {
    "read another file": ("open(args[0]).read()", Layer.LANDLOCK),
    "read a system file": ("open('/etc/passwd').read()", Layer.LANDLOCK),
    "list a folder": ("os.listdir(os.path.dirname(args[0]))", Layer.LANDLOCK),
    "create a file": ("os.open(args[0] + '.new', os.O_WRONLY | os.O_CREAT)", Layer.LANDLOCK),
    "overwrite the input": ("os.write(os.open(f'/dev/fd/{fd}', os.O_WRONLY), b'x')", Layer.LANDLOCK),
    "remove a file": ("os.unlink(args[0])", Layer.LANDLOCK),
    "execute another program": ("os.execv('/bin/true', ['true'])", Layer.LANDLOCK),
    "signal its parent": ("os.kill(int(args[2]), 0)", Layer.LANDLOCK),
    "read its parent's environment": ("open(f'/proc/{args[2]}/environ').read()", Layer.LANDLOCK),
    "open a TCP connection": ("import socket; socket.create_connection(('127.0.0.1', int(args[1])), 5)", Layer.SECCOMP),
    "send a datagram": (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        Layer.SECCOMP,
    ),
    "fork": ("os.fork() or os._exit(0)", Layer.SECCOMP),
    "spawn a process": ("os.posix_spawn('/proc/self/exe', ['x', '-c', 'pass'], {})", Layer.SECCOMP),
    "enter a user namespace": (f"{_CHECKED}(c.unshare(0x10000000))", Layer.SECCOMP),
    "limit its parent": ("import resource; resource.prlimit(int(args[2]), resource.RLIMIT_CORE)", Layer.SECCOMP),
    "set its own limits": (
        "import resource; resource.setrlimit(resource.RLIMIT_STACK, resource.getrlimit(resource.RLIMIT_STACK))",
        Layer.SECCOMP,
    ),
    "pin its parent to CPUs": ("os.sched_setaffinity(int(args[2]), os.sched_getaffinity(0))", Layer.SECCOMP),
    "schedule its parent": ("os.sched_setscheduler(int(args[2]), os.SCHED_OTHER, os.sched_param(0))", Layer.SECCOMP),
    "renice its parent": ("os.setpriority(os.PRIO_PROCESS, int(args[2]), 0)", Layer.SECCOMP),
    "redirect signals to its parent": ("import fcntl; fcntl.fcntl(fd, fcntl.F_SETOWN, int(args[2]))", Layer.SECCOMP),
    "change a file mode": ("os.chmod(args[0], 0o600)", Layer.SECCOMP),
    "change a file owner": ("os.chown(args[0], -1, -1)", Layer.SECCOMP),
    "change a file time": ("os.utime(args[0])", Layer.SECCOMP),
    "set an extended attribute": ("os.setxattr(args[0], 'user.left', b'x')", Layer.SECCOMP),
    "create a message queue": (f"{_CHECKED}(c.msgget(0x5157, 0o1600))", Layer.SECCOMP),
    "create shared memory": (f"{_CHECKED}(c.shmget(0, 4096, 0o600))", Layer.SECCOMP),
    "create semaphores": (f"{_CHECKED}(c.semget(0, 1, 0o600))", Layer.SECCOMP),
    "create an anonymous file": ("os.memfd_create('x')", Layer.SECCOMP),
    "watch files": (f"{_CHECKED}(c.inotify_init())", Layer.SECCOMP),
    "map shared memory": ("import mmap; mmap.mmap(-1, 4096)", Layer.SECCOMP),
    "outlive the launcher": (f"{_CHECKED}(c.prctl(1, 0))", Layer.SECCOMP),
    "set up an io_uring": (f"{_CHECKED}(c.syscall(425, 1, ctypes.create_string_buffer(120)))", Layer.SECCOMP),
    "allocate 2 GiB": ("bytearray(2 << 30)", Layer.LIMITS),
    "open a hundred files": ("[os.dup(fd) for _ in range(100)]", Layer.LIMITS),
}
_REFUSALS = ("Permission", "not permitted", "not allowed", "Memory", "Too many")
_NEED_ROOT = ("enter a user namespace", "renice its parent")


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_layer_prevents_harm(sandbox: Sandbox, input_file: Path, tmp_path: Path, attempt: str) -> None:
    program, layer = ATTEMPTS[attempt]
    other = tmp_path / "other"
    other.write_text("another file")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = (other, listener.getsockname()[1], os.getpid())
        # Without any layer the attempt succeeds, so a failure below is due to the layer. New kernels prevent some of
        # the attempts listed under seccomp with Landlock as well.
        with closing(python_sandbox(wanted=())) as unrestricted:
            if attempt not in _NEED_ROOT or os.geteuid() == 0:
                status, output = run(unrestricted, program, input_file, *arguments)
                assert status == 0, output
        if layer not in sandbox.layers:
            pytest.skip(f"this machine does not support {layer}")
        other.write_text("another file")
        input_file.write_bytes(b"the input")
        with closing(python_sandbox(wanted={layer})) as with_one_layer:
            for restricted in (with_one_layer, sandbox):
                status, output = run(restricted, program, input_file, *arguments)
                assert status == 1, output
                assert any(refusal in output for refusal in _REFUSALS), output
    assert other.read_text() == "another file"
    assert input_file.read_bytes() == b"the input"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".new") == ["input", "other"]


def test_a_program_that_exceeds_its_cpu_limit_is_terminated(sandbox: Sandbox, input_file: Path) -> None:
    limits = replace(LIMITS, cpu_s=0.5)
    assert run(sandbox, "while True: pass", input_file, limits=limits)[0] == -signal.SIGXCPU


def test_the_cpu_limit_can_be_raised_up_to_the_maximum(sandbox: Sandbox, input_file: Path) -> None:
    limits = replace(LIMITS, cpu_s=60, max_cpu_s=90)
    with spawned(sandbox, "print(flush=True)\nwhile True: pass", input_file, limits=limits) as process:
        assert process.stdout.read(1)
        for requested, applied in ((70.5, 71), (200, 91)):
            process.set_cpu_limit(requested)
            until(lambda: resource.prlimit(process.pid, resource.RLIMIT_CPU) == (applied, 91))  # noqa: B023


def test_a_file_that_was_opened_for_writing_cannot_be_written(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither Landlock nor seccomp prevents a program from writing to a descriptor that it was given."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        command = [str(PYTHON), "-I", "-S", "-c", f"import os; os.write({INPUT_FD}, b'x')"]
        process = sandbox.spawn(command, input_file=file.fileno(), limits=LIMITS, environment=ENVIRONMENT)
        with process.stderr, process:
            assert process.wait(60) in (-signal.SIGXFSZ, 1)
    assert log.read_bytes() == b""


def test_environment_and_descriptors_are_not_inherited(
    sandbox: Sandbox, input_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WHOLETRACK_API_KEYS", "secret")
    with (tmp_path / "private").open("wb") as private:
        os.set_inheritable(private.fileno(), True)  # noqa: FBT003 - it accepts no keyword
        status, output = run(sandbox, "print(dict(os.environ))", input_file)
        assert (status, output) == (0, f"{ENVIRONMENT}\n")
        status, output = run(sandbox, "os.fstat(int(args[0]))", input_file, private.fileno())
        assert status == 1
        assert "Bad file descriptor" in output


def test_the_calling_process_is_not_restricted(sandbox: Sandbox, input_file: Path, tmp_path: Path) -> None:
    run(sandbox, "pass", input_file)
    (tmp_path / "new").write_text("x")
    assert (tmp_path / "new").read_text() == "x"
    assert subprocess.run(["/bin/true"], check=True).returncode == 0
    with socket.create_server(("127.0.0.1", 0)):
        pass


def test_missing_layers_are_described() -> None:
    assert list(missing_layers(ALL_LAYERS)) == []
    assert [text.split(",")[0] for text in missing_layers(frozenset())] == ["landlock", "seccomp"]
