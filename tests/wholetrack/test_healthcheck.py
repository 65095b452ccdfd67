"""The health check that containers run every few seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytestmark = pytest.mark.timing

MODULE, COMMAND = ("wholetrack.healthcheck",), ("wholetrack", "health")


def check(port: int, *, command: tuple[str, ...] = MODULE, variable: str = "WHOLETRACK_PORT") -> tuple[int, str]:
    """Run the health check; return its exit status and its output."""
    environment = {**os.environ, "WHOLETRACK_PORT": "1", variable: str(port)}
    command = (sys.executable, "-m", *command)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("variable", ["WHOLETRACK_PORT", "WHOLETRACK_PROBE_PORT"])
@pytest.mark.parametrize("command", [MODULE, COMMAND])
@pytest.mark.parametrize(
    ("status", "expected"),
    # A service with API keys may require one for /readyz.
    [(200, 0), (401, 0), (503, 1), (404, 1)],
)
def test_the_status_of_readyz_decides(status: int, expected: int, command: tuple[str, ...], variable: str) -> None:
    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.handle_request, daemon=True).start()
        output = check(service.server_port, command=command, variable=variable)
        assert output == (expected, f"/readyz returned {status}\n")


@pytest.mark.parametrize("listens", [False, True])
def test_a_service_that_does_not_respond_is_not_healthy(*, listens: bool) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        status, output = check(silent.getsockname()[1])
    assert status == 1
    assert output.startswith("no response: ")
