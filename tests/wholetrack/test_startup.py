"""Which ffmpeg is used, what the service does when a device is unrecoverable, and how it limits malloc."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from wholetrack import startup
from wholetrack.errors import StartupError
from wholetrack.inference.worker import Failure
from wholetrack.settings import Settings

pytestmark = pytest.mark.timing


def test_the_process_ends_even_if_a_thread_hangs() -> None:
    """Here the main thread hangs, as it could in a driver."""
    program = """
import threading
from wholetrack.startup import exit_after_grace
exit_after_grace()
print("still running", flush=True)
threading.Event().wait()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == os.EX_SOFTWARE
    assert ended.stdout == "still running\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has arenas")
def test_threads_share_two_malloc_arenas() -> None:
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


def test_an_ffmpeg_on_the_path_that_cannot_decode_is_replaced_by_the_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ffmpeg"
    path.write_text("#!/bin/sh\necho ffmpeg version 9\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    decoder = startup._working_decoder(Settings())
    assert decoder.ffmpeg.origin == "imageio-ffmpeg"
    decoder.close()
    assert "the ffmpeg on PATH does not work" in caplog.text
    with pytest.raises(StartupError, match="cannot decode a WAV"):
        startup._working_decoder(Settings(ffmpeg=path))


@pytest.mark.parametrize(
    ("failure", "is_default", "ends"),
    [
        (Failure.ALWAYS_RAISES, True, True),
        (Failure.ALWAYS_RAISES, False, False),
        (Failure.DIED, False, True),
        (Failure.HUNG, False, True),
        (Failure.CUDA_CONTEXT_LOST, False, True),
    ],
)
def test_a_client_cannot_end_the_process_by_choosing_a_model_that_always_raises(
    failure: Failure,
    is_default: bool,  # noqa: FBT001
    ends: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exits: list[bool] = []
    monkeypatch.setattr(startup, "exit_after_grace", lambda: exits.append(True))
    startup._on_unrecoverable(is_default, "some-model", failure)
    assert bool(exits) == ends
