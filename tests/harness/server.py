"""The service as a process on a free port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.harness.memory_group import MemoryGroup
from tests.harness.paths import PROJECT
from tests.harness.ports import free_port
from tests.harness.processes import descendants
from tests.harness.waiting import until
from wholetrack.extraction.worker import WORKER_NAME
from wholetrack.sandbox.protocol import LAUNCHER_NAME

_ALWAYS_RUNNING = frozenset({LAUNCHER_NAME, WORKER_NAME})
_READY_S = 60.0
_EXIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running service.

    Attributes:
        url: Address it listens on, without a trailing slash.
        process: The process of the service; decoders are its descendants.
        temp_dir: Folder it keeps uploads in.
        log: File its log goes to.
    """

    url: str
    process: psutil.Process
    temp_dir: Path
    log: Path

    def post(
        self, content: Path | bytes, filename: str | None = None, *, timeout_s: float = 120, **query: Any
    ) -> httpx.Response:
        """Request a prediction, with the recording as multipart form data."""
        if isinstance(content, Path):
            filename = filename or content.name
            content = content.read_bytes()
        files = {"file": (filename or "recording", content)}
        return httpx.post(f"{self.url}/v1/predict", params=query, files=files, timeout=timeout_s)

    def get(self, path: str) -> httpx.Response:
        """Send a GET request."""
        return httpx.get(self.url + path, timeout=30)

    def leftovers(self) -> dict[str, Any]:
        """Return the uploads on disk and the names of the child processes, except those that always run."""
        return {
            "files": [str(path) for path in self.temp_dir.glob("*/uploads/*")],
            "children": [name for _, name in descendants(self.process) if name not in _ALWAYS_RUNNING],
        }

    def cpu_s(self) -> float:
        """Return the CPU time in seconds of the service, its feature workers, and its decoders that have ended."""
        always = [child for child, name in descendants(self.process) if name in _ALWAYS_RUNNING]
        times = [process.cpu_times() for process in (self.process, *always)]
        return sum(t.user + t.system + t.children_user + t.children_system for t in times)

    def peak_bytes(self) -> int:
        """Return the largest resident size so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def descriptors(self) -> int:
        """Return the number of open descriptors that are not network connections."""
        return int(self.process.num_fds()) - len(self.process.net_connections())

    def wait_for_descriptors(self, limit: int) -> None:
        """Wait until at most `limit` descriptors are open: a connection is closed after its client has left.

        Raises:
            AssertionError: If more are still open after the timeout.
        """
        until(
            lambda: self.descriptors() <= limit,
            seconds=20,
            poll_s=0.02,
            context=lambda: f"at most {limit} descriptors expected, {self.descriptors()} open",
        )

    def wait_until_clean(self, seconds: float = 20.0) -> None:
        """Wait until no upload and no decoder is left.

        Raises:
            AssertionError: If something is still there after the timeout.
        """
        nothing: dict[str, Any] = {"files": [], "children": []}
        until(lambda: self.leftovers() == nothing, seconds=seconds, poll_s=0.02, context=lambda: str(self.leftovers()))


@contextmanager
def running_server(
    folder: Path, group: MemoryGroup | None = None, program: Sequence[str] = ("wholetrack",), /, **settings: Any
) -> Iterator[Server]:
    """Start the service on a free port, and stop it with SIGTERM at the end of the block.

    Args:
        folder: An empty folder for uploads and the log.
        group: The control group to run in; None for that of this process.
        program: Module that runs the command line, and its own arguments.
        settings: Settings of the service by their lower-case names, without prefix.

    Raises:
        AssertionError: If the service does not start, or if it leaves files, descriptors or processes behind, exits
            with an error, or logs a traceback.
    """
    port = free_port()
    temp_dir, log = folder / "uploads", folder / "log.jsonl"
    temp_dir.mkdir()
    command = [sys.executable, "-m", *program, "serve", "--port", str(port)]
    if group is not None:
        command = group.command(*command)
    environment = service_environment(temp_dir, settings)
    with log.open("wb") as stderr, subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=stderr) as process:
        server = Server(f"http://127.0.0.1:{port}", psutil.Process(process.pid), temp_dir, log)
        try:
            _wait_until_ready(server, process)
            before = server.descriptors()
            yield server
            if process.poll() is None:
                server.wait_until_clean()
                server.wait_for_descriptors(before)
                process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=_EXIT_S)
            assert status == 0, f"ended with {status}: {log.read_text()}"
        finally:
            process.kill()
    assert list(temp_dir.iterdir()) == []
    assert "Traceback" not in log.read_text(), log.read_text()


def service_environment(temp_dir: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of a service that runs on the CPU, unless the settings say otherwise."""
    variables = {f"WHOLETRACK_{name.upper()}": str(value) for name, value in settings.items()}
    return os.environ | {"WHOLETRACK_TEMP_DIR": str(temp_dir), "WHOLETRACK_DEVICE": "cpu"} | variables


def is_ready(url: str) -> bool:
    """Return whether a service at this address reports that it is ready."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    def ready() -> bool:
        assert process.poll() is None, server.log.read_text()
        return is_ready(server.url)

    until(ready, seconds=_READY_S, poll_s=0.02, context=server.log.read_text)
