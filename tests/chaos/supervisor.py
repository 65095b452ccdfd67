"""The service as a supervisor such as systemd or Compose runs it: started anew whenever it ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.harness.server import PROJECT, Server

READY_S = 60.0


class Supervisor:
    """Runs :mod:`tests.chaos.sabotaged` on one port with one folder for uploads.

    Attributes:
        ended: exit statuses so far, of processes that ended or were killed.
    """

    def __init__(self, folder: Path, temp_dir: Path, **settings: Any) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        variables = {f"WHOLETRACK_{name.upper()}": str(value) for name, value in settings.items()}
        fixed = {"WHOLETRACK_TEMP_DIR": str(temp_dir), "WHOLETRACK_DEVICE": "cpu"}
        self._environment = os.environ | fixed | variables
        self._log = folder / "log.jsonl"
        self._temp_dir = temp_dir
        self._stopping = False
        self.ended: list[int] = []
        self._process = self._start()
        self._watch = threading.Thread(target=self._keep_running, daemon=True)
        self._watch.start()

    @classmethod
    @contextmanager
    def running(cls, folder: Path, temp_dir: Path, **settings: Any) -> Iterator[Supervisor]:
        """A service that is ready, stopped when the block is left."""
        supervisor = cls(folder, temp_dir, **settings)
        try:
            supervisor.wait_until_ready()
            yield supervisor
        finally:
            supervisor.close()

    @property
    def server(self) -> Server:
        """The process that runs now."""
        return Server(f"http://127.0.0.1:{self._port}", psutil.Process(self._process.pid), self._temp_dir, self._log)

    def order(self, what: str) -> None:
        """Have the process do something to itself."""
        assert self._process.stdin
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Signal the process that runs now."""
        self._process.send_signal(number)

    def limit_descriptors(self, most: int | None) -> None:
        """Let the process have so many descriptors, or as many as it had at first."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (hard if most is None else most, hard))

    def wait_until_ready(self) -> float:
        """Wait until it says that it is ready; give how long that took, in seconds."""
        began = time.monotonic()
        while time.monotonic() - began < READY_S:
            try:
                if httpx.get(f"http://127.0.0.1:{self._port}/readyz", timeout=5).status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise TimeoutError(f"not ready within {READY_S:g} s: {self._log.read_text()[-5000:]}")

    def words(self) -> str:
        """All that it has logged."""
        return self._log.read_text()

    def close(self) -> None:
        """Stop for good."""
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._watch.join(30)
        self._shut()

    def _shut(self) -> None:
        """Close the pipe of a process that has ended."""
        with suppress(BrokenPipeError):
            if self._process.stdin:
                self._process.stdin.close()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.chaos.sabotaged", "serve", "--port", str(self._port)]
        with self._log.open("ab") as words:
            return subprocess.Popen(
                command, cwd=PROJECT, env=self._environment, stdin=subprocess.PIPE, stderr=words, text=True
            )

    def _keep_running(self) -> None:
        while True:
            status = self._process.wait()
            if self._stopping:
                return
            self.ended.append(status)
            self._shut()
            self._process = self._start()
