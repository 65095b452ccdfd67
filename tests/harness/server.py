"""The service in a process of its own, on a free port: for the benchmarks and for the tests of the whole way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from wholetrack.sandbox.protocol import LAUNCHER_NAME

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Server:
    """A running service."""

    url: str
    process: psutil.Process
    temp_dir: Path
    log: Path

    def post(
        self, content: Path | bytes, filename: str | None = None, *, timeout_s: float = 120, **query: Any
    ) -> httpx.Response:
        """Predict one recording, as multipart."""
        if isinstance(content, Path):
            filename = filename or content.name
            content = content.read_bytes()
        files = {"file": (filename or "recording", content)}
        return httpx.post(f"{self.url}/v1/predict", params=query, files=files, timeout=timeout_s)

    def get(self, path: str) -> httpx.Response:
        """Ask for an address."""
        return httpx.get(self.url + path, timeout=30)

    def leftovers(self) -> dict[str, Any]:
        """What the service holds beyond itself and the launcher of decoders: uploads, child processes."""
        return {
            "files": [str(path) for path in self.temp_dir.glob("*/uploads/*")],
            "children": [name for _, name in descendants(self.process) if name != LAUNCHER_NAME],
        }

    def cpu_s(self) -> float:
        """Processor time that it and its decoders have taken so far, those that still run not counted."""
        times = [process.cpu_times() for process in (self.process, *self.process.children())]
        return sum(t.user + t.system + t.children_user + t.children_system for t in times)

    def peak_bytes(self) -> int:
        """The largest resident size so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def descriptors(self) -> int:
        """Open files that are no connections to clients."""
        return int(self.process.num_fds()) - len(self.process.net_connections())

    def wait_until_clean(self, seconds: float = 20.0) -> None:
        """Fail if something is left behind that does not go away by itself."""
        deadline = time.monotonic() + seconds
        while self.leftovers() != {"files": [], "children": []}:
            assert time.monotonic() < deadline, self.leftovers()
            time.sleep(0.02)


def descendants(process: psutil.Process) -> Iterator[tuple[psutil.Process, str]]:
    """The processes below one, each with its name, but for those that end at this moment."""
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            yield child, child.name()


@contextmanager
def running_server(folder: Path, **settings: Any) -> Iterator[Server]:
    """Start the service on a free port and stop it with SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    temp_dir, log = folder / "uploads", folder / "log.jsonl"
    temp_dir.mkdir()
    variables = {f"WHOLETRACK_{name.upper()}": str(value) for name, value in settings.items()}
    environment = os.environ | {"WHOLETRACK_TEMP_DIR": str(temp_dir), "WHOLETRACK_DEVICE": "cpu"} | variables
    command = [sys.executable, "-m", "wholetrack", "serve", "--port", str(port)]
    with log.open("wb") as words, subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=words) as process:
        server = Server(f"http://127.0.0.1:{port}", psutil.Process(process.pid), temp_dir, log)
        try:
            _wait_until_ready(server, process)
            before = server.descriptors()
            yield server
            if process.poll() is None:
                server.wait_until_clean()
                assert server.descriptors() <= before, f"{before} descriptors before, {server.descriptors()} after"
                process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=60)
            assert status == 0, f"ended with {status}: {log.read_text()}"
        finally:
            process.kill()
    assert list(temp_dir.iterdir()) == []
    assert "Traceback" not in log.read_text(), log.read_text()


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1500):
        assert process.poll() is None, server.log.read_text()
        try:
            if server.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"the service did not become ready: {server.log.read_text()}")
