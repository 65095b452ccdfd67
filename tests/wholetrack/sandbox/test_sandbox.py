"""Every layer of the decoder's sandbox is tried by a program that does what a file could make a decoder do."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.harness.paths import PROJECT
from tests.harness.waiting import until
from wholetrack.sandbox.client import ALL_LAYERS, INPUT, Layer, Sandbox, missing

# Python in place of ffmpeg, with what it needs to run at all.
_PYTHON = Path(sys.executable).resolve()
_LIBRARIES = (Path(sys.base_prefix), Path(sys.prefix))


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(_PYTHON, libraries=_LIBRARIES)


@pytest.fixture
def harmless(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.write_bytes(b"the input")
    return path


def run(
    sandbox: Sandbox, program: str, input_file: Path, *arguments: object, processor_s: float = 60
) -> tuple[int, str]:
    """Status and words of a Python program, which finds the input's descriptor in ``fd`` and arguments in ``args``."""
    head = "import ctypes, os, sys; c = ctypes.CDLL(None, use_errno=True); fd, args = int(sys.argv[1]), sys.argv[2:]\n"
    with input_file.open("rb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", head + program, str(INPUT), *map(str, arguments)]
        with sandbox.start(command, input_file=file.fileno(), processor_s=processor_s) as started:
            with ThreadPoolExecutor(1) as reading:
                words = reading.submit(started.words.read)
                output = started.output.read()
            status = started.wait(60)
            said = words.result()
            started.words.close()
    return status, (output + said).decode()


_VARIABLES = ["AV_LOG_FORCE_NOCOLOR", "LC_ALL", "MALLOC_ARENA_MAX"]


def without(layer: Layer) -> Sandbox:
    return Sandbox(_PYTHON, wanted=ALL_LAYERS - {layer}, libraries=_LIBRARIES)


def test_this_machine_has_every_layer(sandbox: Sandbox) -> None:
    """Kernels without Landlock, or hosts without libseccomp, are for the setting `required` to refuse."""
    if lacking := list(missing(sandbox.layers)):
        pytest.xfail(f"the sandbox is incomplete here: {lacking}")
    assert sandbox.layers == ALL_LAYERS


def test_the_input_can_be_read(sandbox: Sandbox, harmless: Path) -> None:
    for program in ("print(os.read(fd, 100))", "print(open(f'/dev/fd/{fd}', 'rb').read())"):
        assert run(sandbox, program, harmless) == (0, "b'the input'\n")


_REFUSED = "(lambda found: found >= 0 or sys.exit(os.strerror(ctypes.get_errno())))"

# (what is tried, the layer that holds it); `other` is a file, `port` a listener of ours.
ATTEMPTS = {
    "read another file": ("open(args[0]).read()", Layer.LANDLOCK),
    "read a file of the system": ("open('/etc/passwd').read()", Layer.LANDLOCK),
    "list the neighbours": ("os.listdir(os.path.dirname(args[0]))", Layer.LANDLOCK),
    "write a file": ("os.open(args[0] + '.new', os.O_WRONLY | os.O_CREAT)", Layer.LANDLOCK),
    "overwrite the input": ("os.write(os.open(f'/dev/fd/{fd}', os.O_WRONLY), b'x')", Layer.LANDLOCK),
    "remove a file": ("os.unlink(args[0])", Layer.LANDLOCK),
    "execute another program": ("os.execv('/bin/true', ['true'])", Layer.LANDLOCK),
    "signal its parent": ("os.kill(int(args[2]), 0)", Layer.LANDLOCK),
    "look into its parent": ("open(f'/proc/{args[2]}/environ').read()", Layer.LANDLOCK),
    "connect": ("import socket; socket.create_connection(('127.0.0.1', int(args[1])), 5)", Layer.SECCOMP),
    "send a datagram": (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        Layer.SECCOMP,
    ),
    "fork": ("os.fork() or os._exit(0)", Layer.SECCOMP),
    "start a process": ("os.posix_spawn('/proc/self/exe', ['x', '-c', 'pass'], {})", Layer.SECCOMP),
    "become another user": (f"{_REFUSED}(c.unshare(0x10000000))", Layer.SECCOMP),
    "limit its parent": ("import resource; resource.prlimit(int(args[2]), resource.RLIMIT_CORE)", Layer.SECCOMP),
    "raise its limits": (
        "import resource; resource.setrlimit(resource.RLIMIT_STACK, resource.getrlimit(resource.RLIMIT_STACK))",
        Layer.SECCOMP,
    ),
    "move its parent": ("os.sched_setaffinity(int(args[2]), os.sched_getaffinity(0))", Layer.SECCOMP),
    "slow its parent": ("os.sched_setscheduler(int(args[2]), os.SCHED_OTHER, os.sched_param(0))", Layer.SECCOMP),
    "be nice to its parent": ("os.setpriority(os.PRIO_PROCESS, int(args[2]), 0)", Layer.SECCOMP),
    "have its parent signalled": ("import fcntl; fcntl.fcntl(fd, fcntl.F_SETOWN, int(args[2]))", Layer.SECCOMP),
    "change a mode": ("os.chmod(args[0], 0o600)", Layer.SECCOMP),
    "change an owner": ("os.chown(args[0], -1, -1)", Layer.SECCOMP),
    "change a time": ("os.utime(args[0])", Layer.SECCOMP),
    "change an attribute": ("os.setxattr(args[0], 'user.left', b'x')", Layer.SECCOMP),
    "leave a message": (f"{_REFUSED}(c.msgget(0x5157, 0o1600))", Layer.SECCOMP),
    "leave memory": (f"{_REFUSED}(c.shmget(0, 4096, 0o600))", Layer.SECCOMP),
    "leave semaphores": (f"{_REFUSED}(c.semget(0, 1, 0o600))", Layer.SECCOMP),
    "hide memory": ("os.memfd_create('x')", Layer.SECCOMP),
    "watch files": (f"{_REFUSED}(c.inotify_init())", Layer.SECCOMP),
    "share memory": ("import mmap; mmap.mmap(-1, 4096)", Layer.SECCOMP),
    "outlive the launcher": (f"{_REFUSED}(c.prctl(1, 0))", Layer.SECCOMP),
    "use the kernel's ring": (f"{_REFUSED}(c.syscall(425, 1, ctypes.create_string_buffer(120)))", Layer.SECCOMP),
    "allocate 2 GiB": ("bytearray(2 << 30)", Layer.LIMITS),
    "open a hundred files": ("[os.dup(fd) for _ in range(100)]", Layer.LIMITS),
}


_REFUSALS = ("Permission", "not permitted", "not allowed", "Memory", "Too many")
_OF_ROOT = ("become another user", "be nice to its parent")


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_a_file_could_make_a_decoder_do(sandbox: Sandbox, harmless: Path, tmp_path: Path, attempt: str) -> None:
    program, layer = ATTEMPTS[attempt]
    other = tmp_path / "other"
    other.write_text("of somebody else")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = (other, listener.getsockname()[1], os.getpid())
        # It would work without the layer: the attempt is a real one. seccomp's are also Landlock's where that is new.
        with closing(Sandbox(_PYTHON, wanted=(), libraries=_LIBRARIES)) as open_to:
            if attempt not in _OF_ROOT or os.geteuid() == 0:
                status, words = run(open_to, program, harmless, *arguments)
                assert status == 0, words
        if layer not in sandbox.layers:
            pytest.skip(f"this machine has no {layer}")
        other.write_text("of somebody else")
        harmless.write_bytes(b"the input")
        with closing(Sandbox(_PYTHON, wanted={layer}, libraries=_LIBRARIES)) as only:
            for held in (only, sandbox):
                status, words = run(held, program, harmless, *arguments)
                assert status == 1, words
                assert any(
                    word in words for word in ("Permission", "not permitted", "not allowed", "Memory", "Too many")
                ), words
    assert other.read_text() == "of somebody else"
    assert harmless.read_bytes() == b"the input"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".new") == ["input", "other"]


def test_a_decoder_that_never_ends_is_ended(sandbox: Sandbox, harmless: Path) -> None:
    assert run(sandbox, "while True: pass", harmless, processor_s=0.5)[0] == -signal.SIGXCPU


def test_a_decoder_that_gets_on_is_given_more_time(sandbox: Sandbox, harmless: Path) -> None:
    """But no more than it may have at all."""
    with harmless.open("rb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", "print(flush=True)\nwhile True: pass"]
        with sandbox.start(command, input_file=file.fileno(), processor_s=60, most_processor_s=90) as started:
            assert started.output.read(1)
            for asked, given in ((70.5, 71), (200, 91)):
                started.allow(asked)
                until(lambda: resource.prlimit(started.pid, resource.RLIMIT_CPU) == (given, 91))  # noqa: B023
        started.words.close()


def launcher_of(sandbox: Sandbox) -> psutil.Process:
    (found,) = (p for p in psutil.Process().children() if p.pid == sandbox._in_use()._process.pid)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_launcher_that_ends_or_hangs_is_replaced_and_leaves_nothing(
    harmless: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("wholetrack.sandbox.client._START_TIMEOUT_S", 0.5)
    monkeypatch.setattr("wholetrack.sandbox.client._REPORT_TIMEOUT_S", 0.5)
    with closing(Sandbox(_PYTHON, libraries=_LIBRARIES)) as sandbox, harmless.open("rb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", "import time; time.sleep(60)"]
        with sandbox.start(command, input_file=file.fileno(), processor_s=60) as started:
            first = launcher_of(sandbox)
            first.send_signal(number)
            assert run(sandbox, "print('again')", harmless) == (0, "again\n")
            assert not first.is_running()
            assert launcher_of(sandbox) != first
            # What it had started went with it.
            assert started.wait(10) == -signal.SIGKILL
            started.words.close()
        assert len(launcher_of(sandbox).children()) == 0


def test_a_launcher_that_somebody_else_gives_up_meanwhile_is_replaced(harmless: Path) -> None:
    with closing(Sandbox(_PYTHON, libraries=_LIBRARIES)) as sandbox:
        sandbox._in_use().close()
        assert run(sandbox, "print('again')", harmless) == (0, "again\n")


def test_what_is_allowed_too_late_hides_no_status(sandbox: Sandbox, harmless: Path) -> None:
    with harmless.open("rb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", "import time; time.sleep(0.3); raise SystemExit(3)"]
        with sandbox.start(command, input_file=file.fileno(), processor_s=60) as started:
            first = launcher_of(sandbox)
            first.suspend()
            until(lambda: psutil.Process(started.pid).status() == psutil.STATUS_ZOMBIE)
            started.allow(70)
            first.resume()
            assert started.wait(10) == 3
        started.words.close()


_TAKES_ITSELF_OVER = """
import os, threading
again = ["x", "-I", "-S", "-c", "import time; print('again', flush=True); time.sleep(60)"]
threading.Thread(target=lambda: os.execv("/proc/self/exe", again)).start()
threading.Event().wait()
"""


def test_what_took_itself_over_in_a_thread_ends_with_the_launcher(harmless: Path) -> None:
    """The kernel's signal at a parent's death belongs to a thread, and another one that calls execve has none."""
    with closing(Sandbox(_PYTHON, libraries=_LIBRARIES)) as sandbox, harmless.open("rb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", _TAKES_ITSELF_OVER]
        started = [sandbox.start(command, input_file=file.fileno(), processor_s=60) for _ in range(2)]
        assert all(each.output.readline() == b"again\n" for each in started)
        launcher_of(sandbox).kill()
        assert run(sandbox, "print('another')", harmless) == (0, "another\n")
        for each in started:
            with each.words, each:
                assert each.wait(10) == -signal.SIGKILL


def test_what_was_started_ends_with_the_service(harmless: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from wholetrack.sandbox.client import Sandbox
sandbox = Sandbox(Path({str(_PYTHON)!r}), libraries={[str(path) for path in _LIBRARIES]!r})
command = [{str(_PYTHON)!r}, "-I", "-S", "-c", {_TAKES_ITSELF_OVER!r}]
started = sandbox.start(command, input_file=os.open({str(harmless)!r}, os.O_RDONLY), processor_s=60)
started.output.readline()
print(started.pid, sandbox._in_use()._process.pid, flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT, text=True) as service:
        assert service.stdout
        pids = [int(pid) for pid in service.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        service.kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_nothing_that_was_started_can_be_hit_in_place_of_what_has_ended(sandbox: Sandbox, harmless: Path) -> None:
    with harmless.open("rb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", "pass"]
        started = sandbox.start(command, input_file=file.fileno(), processor_s=60)
        started.close()
        started.words.close()
    started.kill()
    assert started.poll() == started.wait(0)


def test_a_machine_without_room_for_a_process_says_so(sandbox: Sandbox, harmless: Path) -> None:
    launcher = sandbox._in_use()._process
    usual = resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, (4, usual[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            run(sandbox, "pass", harmless)
    finally:
        resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, usual)
    assert run(sandbox, "print('again')", harmless) == (0, "again\n")
    assert sandbox._in_use()._process is launcher


def test_no_byte_is_written_into_a_file_that_was_open_before(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither Landlock nor seccomp keeps a program from writing where somebody else opened for writing."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", f"import os; os.write({INPUT}, b'x')"]
        with sandbox.start(command, input_file=file.fileno(), processor_s=60) as started:
            status = started.wait(60)
            started.words.close()
    assert status in (-signal.SIGXFSZ, 1)
    assert log.read_bytes() == b""


def test_secrets_and_descriptors_stay_here(
    sandbox: Sandbox, harmless: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WHOLETRACK_API_KEYS", "secret")
    with (tmp_path / "private").open("wb") as private:
        os.set_inheritable(private.fileno(), True)  # noqa: FBT003 - it takes no keyword
        assert run(sandbox, "print(sorted(os.environ))", harmless) == (0, f"{_VARIABLES}\n")
        status, words = run(sandbox, "os.fstat(int(args[0]))", harmless, private.fileno())
        assert status == 1
        assert "Bad file descriptor" in words


def test_the_service_itself_is_not_held(sandbox: Sandbox, harmless: Path, tmp_path: Path) -> None:
    run(sandbox, "pass", harmless)
    (tmp_path / "new").write_text("x")
    assert (tmp_path / "new").read_text() == "x"
    assert subprocess.run(["/bin/true"], check=True).returncode == 0
    with socket.create_server(("127.0.0.1", 0)):
        pass


def test_what_is_missing_is_named() -> None:
    assert list(missing(ALL_LAYERS)) == []
    assert [text.split(",")[0] for text in missing(frozenset())] == ["landlock", "seccomp"]
