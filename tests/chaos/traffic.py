"""Clients that post recordings continuously and check every response; some of them disconnect or send slowly."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.harness.server import Server
from wholetrack.errors import ErrorKind

Expected = Mapping[str, tuple[bytes, dict[str, Any] | None]]
"""What clients post by name: the bytes, and the response without faults, or None if an error is expected."""

HANG_S = 40.0
"""A request that takes longer counts as hung: the service's own time limit is ten seconds in these tests."""

_STATUSES = {kind.code: kind.status for kind in ErrorKind}
# Probabilities have four decimals.
_TOLERANCE = 2e-4


@dataclass(slots=True)
class TrafficResult:
    """What clients received.

    Attributes:
        outcomes: Number of requests by outcome: ``ok``, the code of an error, ``refused`` if nothing listened,
            ``connection_lost`` if the connection ended before the response, ``disconnected`` or ``slow_upload`` for
            clients that disconnect or send slowly on purpose, and ``hang``.
        problems: Everything that should not have happened.
        slowest_s: Latency of the slowest request, in seconds.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


class Traffic:
    """Clients in threads.

    Args:
        server: The service.
        recordings: The recordings that they post, one after another.
        clients: Number of clients that wait for every response.
        disconnecting: Number of further clients that disconnect before the response.
        slow: Number of further clients that send a byte now and then.
    """

    def __init__(
        self, server: Server, recordings: Expected, *, clients: int, disconnecting: int = 0, slow: int = 0
    ) -> None:
        self._server = server
        self._result = TrafficResult()
        self._recordings = list(recordings.items())
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._run_client, args=(number,)) for number in range(clients)),
            *(
                threading.Thread(target=self._run_disconnecting_client, args=(number,))
                for number in range(disconnecting)
            ),
            *(threading.Thread(target=self._run_slow_client) for _ in range(slow)),
        ]

    @contextmanager
    def running(self) -> Iterator[TrafficResult]:
        """Send requests during the block; at its end, wait until every client has its response."""
        for thread in self._threads:
            thread.start()
        try:
            yield self._result
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(2 * HANG_S)
                if thread.is_alive():
                    self._result.problems.append("a client never got a response")

    def _run_client(self, number: int) -> None:
        while not self._stopping.is_set():
            name, (content, expected) = self._recordings[number % len(self._recordings)]
            number += 1
            began = time.monotonic()
            outcome, problems = self._predict(content, expected)
            with self._lock:
                self._result.outcomes[outcome] += 1
                self._result.problems += [f"{name}: {problem}" for problem in problems]
                self._result.slowest_s = max(self._result.slowest_s, time.monotonic() - began)
            if outcome != "ok":
                self._stopping.wait(0.02)

    def _predict(self, content: bytes, expected: dict[str, Any] | None) -> tuple[str, list[str]]:
        """Send a request, and return its outcome and what is wrong with the response."""
        connection = http.client.HTTPConnection(self._server.url.removeprefix("http://"), timeout=HANG_S)
        with closing(connection):
            try:
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request("POST", "/v1/predict", content)
                response = connection.getresponse()
                body = json.loads(response.read())
            except TimeoutError:
                return "hang", ["a request hung"]
            except ConnectionRefusedError:
                return "refused", []
            except (OSError, http.client.HTTPException, ValueError):
                return "connection_lost", []
        if response.status == 200:
            return "ok", list(differences(body, expected)) if expected else ["a prediction for an invalid file"]
        code = body.get("code", "none")
        return code, [] if _STATUSES.get(code) == response.status else [f"status {response.status} with code {code}"]

    def _run_disconnecting_client(self, number: int) -> None:
        """Disconnect during the upload, while waiting, or at the beginning of the response."""
        rng = np.random.default_rng(number)
        while not self._stopping.is_set():
            _, (content, _) = self._recordings[int(rng.integers(len(self._recordings)))]
            headers = _request_headers(len(content))
            with suppress(OSError), closing(self._connect()) as client:
                match rng.integers(3):
                    case 0:
                        client.sendall(headers + content[: int(rng.integers(len(content)))])
                    case 1:
                        client.sendall(headers + content)
                        time.sleep(float(rng.uniform(0, 0.2)))
                    case _:
                        client.sendall(headers + content)
                        client.recv(100)
            with self._lock:
                self._result.outcomes["disconnected"] += 1
            time.sleep(0.01)

    def _run_slow_client(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError), closing(self._connect()) as client:
                for part in (_request_headers(100_000), *[b"R"] * 100):
                    client.sendall(part)
                    if self._stopping.wait(0.5):
                        break
            with self._lock:
                self._result.outcomes["slow_upload"] += 1

    def _connect(self) -> socket.socket:
        host, port = self._server.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=HANG_S)


def _request_headers(content_length: int) -> bytes:
    return f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {content_length}\r\n\r\n".encode()


def differences(body: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    """Yield how a prediction differs from the prediction for the same recording without faults."""
    if body["windows"]["genre"] != expected["windows"]["genre"]:
        yield "a prediction with other genres"
    if not np.allclose(body["windows"]["probabilities"], expected["windows"]["probabilities"], atol=_TOLERANCE):
        yield "a prediction with other probabilities"
    if body["track"]["sha256"] != expected["track"]["sha256"]:
        yield "a prediction for another recording"
