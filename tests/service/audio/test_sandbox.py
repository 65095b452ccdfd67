"""Every layer of the decoder's sandbox is tried by a program that does what a file could make a decoder do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.audio.sandbox import ALL_LAYERS, Layer, Sandbox, missing

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
    head = "import os, sys; fd, args = int(sys.argv[1]), sys.argv[2:]\n"
    with input_file.open("rb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", head + program, str(file.fileno()), *map(str, arguments)]
        process = sandbox.start(command, input_file=file.fileno(), processor_s=processor_s)
        with process:
            output, words = process.communicate(timeout=60)
    return process.returncode, (output + words).decode()


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
    "become another user": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); assert c.unshare(0x10000000) == 0, 'refused'",
        Layer.SECCOMP,
    ),
    "allocate 2 GiB": ("bytearray(2 << 30)", Layer.LIMITS),
    "open a hundred files": ("[os.dup(fd) for _ in range(100)]", Layer.LIMITS),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_a_file_could_make_a_decoder_do(sandbox: Sandbox, harmless: Path, tmp_path: Path, attempt: str) -> None:
    program, layer = ATTEMPTS[attempt]
    other = tmp_path / "other"
    other.write_text("of somebody else")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = (other, listener.getsockname()[1], os.getpid())
        # It would work without the layer: the attempt is a real one. seccomp's are also Landlock's where that is new.
        open_to = Sandbox(_PYTHON, wanted=(), libraries=_LIBRARIES)
        if attempt != "become another user" or os.geteuid() == 0:
            status, words = run(open_to, program, harmless, *arguments)
            assert status == 0, words
        if layer not in sandbox.layers:
            pytest.skip(f"this machine has no {layer}")
        other.write_text("of somebody else")
        harmless.write_bytes(b"the input")
        only = Sandbox(_PYTHON, wanted={layer}, libraries=_LIBRARIES)
        for held in (only, sandbox):
            status, words = run(held, program, harmless, *arguments)
            assert status == 1, words
            assert any(word in words for word in ("Permission", "not permitted", "Memory", "Too many", "refused")), (
                words
            )
    assert other.read_text() == "of somebody else"
    assert harmless.read_bytes() == b"the input"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".new") == ["input", "other"]


def test_a_decoder_that_never_ends_is_ended(sandbox: Sandbox, harmless: Path) -> None:
    assert run(sandbox, "while True: pass", harmless, processor_s=0.5)[0] == -signal.SIGXCPU


def test_a_child_that_is_stopped_before_it_is_a_decoder_is_killed(
    sandbox: Sandbox, harmless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the kernel keeps the thread that starts it waiting (vfork(2)), here played by one that waits."""
    start = subprocess.Popen

    def start_and_wait(*arguments: Any, **keywords: Any) -> subprocess.Popen[bytes]:
        process = start(*arguments, **keywords)
        process.wait()
        return process

    monkeypatch.setattr("service.audio.sandbox._START_TIMEOUT_S", 0.5)
    monkeypatch.setattr(subprocess, "Popen", start_and_wait)
    assert run(sandbox, "import time; time.sleep(60)", harmless)[0] == -signal.SIGKILL


def test_no_byte_is_written_into_a_file_that_was_open_before(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither Landlock nor seccomp keeps a program from writing where somebody else opened for writing."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        command = [str(_PYTHON), "-I", "-S", "-c", f"import os; os.write({file.fileno()}, b'x')"]
        with sandbox.start(command, input_file=file.fileno(), processor_s=60) as process:
            process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGXFSZ, 1)
    assert log.read_bytes() == b""


def test_secrets_and_descriptors_stay_here(
    sandbox: Sandbox, harmless: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WHOLETRACK_API_KEYS", "secret")
    with (tmp_path / "private").open("wb") as private:
        os.set_inheritable(private.fileno(), True)  # noqa: FBT003 - it takes no keyword
        assert run(sandbox, "print(sorted(os.environ))", harmless) == (0, "['AV_LOG_FORCE_NOCOLOR', 'LC_ALL']\n")
        status, words = run(sandbox, "os.fstat(int(args[0]))", harmless, private.fileno())
        assert status == 1
        assert "Bad file descriptor" in words


def test_the_service_itself_is_not_held(sandbox: Sandbox, harmless: Path, tmp_path: Path) -> None:
    """Restrictions belong to the thread that starts a decoder, and end with it."""
    run(sandbox, "pass", harmless)
    (tmp_path / "new").write_text("x")
    assert (tmp_path / "new").read_text() == "x"
    assert subprocess.run(["/bin/true"], check=True).returncode == 0
    with socket.create_server(("127.0.0.1", 0)):
        pass


def test_what_is_missing_is_named() -> None:
    assert list(missing(ALL_LAYERS)) == []
    assert [text.split(",")[0] for text in missing(frozenset({Layer.LIMITS}))] == ["landlock", "seccomp"]
