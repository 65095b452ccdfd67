"""What a container asks every few seconds: whether the service is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

IN_CONTAINERS, FOR_PEOPLE = ("wholetrack.healthcheck",), ("wholetrack", "health")


def check(port: int, *, command: tuple[str, ...] = IN_CONTAINERS) -> tuple[int, str]:
    environment = {**os.environ, "WHOLETRACK_PORT": str(port)}
    command = (sys.executable, "-m", *command)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("command", [IN_CONTAINERS, FOR_PEOPLE])
@pytest.mark.parametrize(
    ("status", "expected"),
    # A service with keys may keep its health to itself.
    [(200, 0), (401, 0), (503, 1), (404, 1)],
)
def test_an_answer(status: int, expected: int, command: tuple[str, ...]) -> None:
    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.handle_request, daemon=True).start()
        assert check(service.server_port, command=command) == (expected, f"/readyz answers {status}\n")


@pytest.mark.parametrize("listens", [False, True])
def test_no_answer(*, listens: bool) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        code, words = check(silent.getsockname()[1])
    assert code == 1
    assert words.startswith("no answer: ")
