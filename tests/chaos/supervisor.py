"""The service under a supervisor such as systemd or Compose, which restarts it whenever it ends."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.harness.paths import PROJECT
from tests.harness.ports import free_port
from tests.harness.server import Server, is_ready, service_environment
from tests.harness.waiting import until

_READY_S = 60.0
_STOP_S = 30.0
_LOG_TAIL = 5000


class Supervisor:
    """Runs :mod:`tests.chaos.breakable_service` on one port with one folder for uploads.

    Args:
        folder: Folder for the log.
        temp_dir: Folder for uploads.
        settings: Settings of the service by their lower-case names, without prefix.

    Attributes:
        exit_statuses: Exit statuses of the processes that have ended or were killed.
    """

    def __init__(self, folder: Path, temp_dir: Path, **settings: Any) -> None:
        self.exit_statuses: list[int] = []
        self._port = free_port()
        self._environment = service_environment(temp_dir, settings)
        self._log = folder / "log.jsonl"
        self._temp_dir = temp_dir
        self._stopping = False
        self._process = self._start()
        self._watcher = threading.Thread(target=self._keep_running, daemon=True)
        self._watcher.start()

    @classmethod
    @contextmanager
    def running(cls, folder: Path, temp_dir: Path, **settings: Any) -> Iterator[Supervisor]:
        """Yield a supervisor whose service is ready, and stop both at the end of the block."""
        supervisor = cls(folder, temp_dir, **settings)
        try:
            supervisor.wait_until_ready()
            yield supervisor
        finally:
            supervisor.close()

    @property
    def server(self) -> Server:
        """The process that is running now."""
        return Server(f"http://127.0.0.1:{self._port}", psutil.Process(self._process.pid), self._temp_dir, self._log)

    def command(self, command: str) -> None:
        """Send a command of :mod:`tests.chaos.breakable_service`."""
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that is running now."""
        self._process.send_signal(number)

    def limit_descriptors(self, limit: int | None) -> None:
        """Limit the open descriptors of the process; None restores the limit it started with."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (hard if limit is None else limit, hard))

    def wait_until_ready(self) -> None:
        """Wait until the service reports that it is ready.

        Raises:
            AssertionError: If that takes more than a minute.
        """
        url = f"http://127.0.0.1:{self._port}"
        until(lambda: is_ready(url), seconds=_READY_S, poll_s=0.02, context=lambda: self.log()[-_LOG_TAIL:])

    def log(self) -> str:
        """Return the log of all processes so far."""
        return self._log.read_text()

    def close(self) -> None:
        """Stop the service and do not restart it."""
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._watcher.join(_STOP_S)
        self._close_stdin()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.chaos.breakable_service", "serve", "--port", str(self._port)]
        with self._log.open("ab") as stderr:
            return subprocess.Popen(
                command, cwd=PROJECT, env=self._environment, stdin=subprocess.PIPE, stderr=stderr, text=True
            )

    def _keep_running(self) -> None:
        while True:
            status = self._process.wait()
            if self._stopping:
                return
            self.exit_statuses.append(status)
            self._close_stdin()
            self._process = self._start()

    def _close_stdin(self) -> None:
        with suppress(BrokenPipeError):
            if self._process.stdin:
                self._process.stdin.close()
