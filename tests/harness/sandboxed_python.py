"""Python programs that run in the sandbox, in place of ffmpeg."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from wholetrack.sandbox.client import Sandbox
from wholetrack.sandbox.layers import ALL_LAYERS, Layer
from wholetrack.sandbox.limits import Limits
from wholetrack.sandbox.process import SandboxedProcess
from wholetrack.sandbox.protocol import INPUT_FD
from wholetrack.sandbox.target import Program

PYTHON = Path(sys.executable).resolve()
LIMITS = Limits(
    cpu_s=60,
    max_cpu_s=60,
    data_bytes=256 << 20,
    address_space_bytes=1 << 30,
    stack_bytes=8 << 20,
    open_files=32,
)
ENVIRONMENT = {"LC_ALL": "C"}

# Available to every program: the C library, the descriptor of the input, and the arguments.
_PREAMBLE = f"""
import ctypes, os, sys
c, fd, args = ctypes.CDLL(None, use_errno=True), {INPUT_FD}, sys.argv[1:]
"""


def python_sandbox(wanted: Collection[Layer] = ALL_LAYERS) -> Sandbox:
    """Return a sandbox in which the interpreter finds its standard library."""
    return Sandbox(Program(PYTHON, (Path(sys.base_prefix), Path(sys.prefix))), wanted=wanted)


@contextmanager
def spawned(
    sandbox: Sandbox, program: str, input_file: Path, *arguments: object, limits: Limits = LIMITS
) -> Iterator[SandboxedProcess]:
    """Yield a running program, which is killed and closed at the end of the block."""
    command = [str(PYTHON), "-I", "-S", "-c", _PREAMBLE + program, *map(str, arguments)]
    with input_file.open("rb") as file:
        process = sandbox.spawn(command, input_file=file.fileno(), limits=limits, environment=ENVIRONMENT)
    with process.stderr, process:
        yield process


def run(
    sandbox: Sandbox, program: str, input_file: Path, *arguments: object, limits: Limits = LIMITS
) -> tuple[int, str]:
    """Run a program, and return its exit status and its output, stderr included."""
    with spawned(sandbox, program, input_file, *arguments, limits=limits) as process:
        with ThreadPoolExecutor(1) as thread:
            stderr = thread.submit(process.stderr.read)
            stdout = process.stdout.read()
        return process.wait(60), (stdout + stderr.result()).decode()
