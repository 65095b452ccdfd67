"""Clients that post recordings without pause and look at every answer, some of whom leave or dawdle."""

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

Recordings = Mapping[str, tuple[bytes, dict[str, Any] | None]]
"""What is posted, by name: the bytes, and the right answer; None where an error is."""

_CODES = {kind.code: kind.status for kind in ErrorKind}
_TOLERANCE = 1e-4
# An answer that is later than this was a hang: the service's own limit is ten seconds.
HANG_S = 40.0


@dataclass(slots=True)
class Seen:
    """What clients saw.

    Attributes:
        outcomes: answers by code, ``ok`` among them; ``refused`` where nobody listened, ``cut`` where the connection
            ended before the answer, ``left`` where the client did that.
        wrong: what must not be, in words.
        slowest_s: answer.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


class Traffic:
    """Clients in threads, until they are told to stop.

    Args:
        server: whom they ask.
        recordings: what they post in turn.
        clients: how many at a time.
        leavers: how many more there are who never wait for an answer.
        dawdlers: how many more there are who send a byte now and then.
    """

    def __init__(
        self,
        server: Server,
        recordings: Recordings,
        *,
        clients: int,
        leavers: int = 0,
        dawdlers: int = 0,
    ) -> None:
        self.server = server
        self.seen = Seen()
        self._recordings = list(recordings.items())
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]
        self._threads += [threading.Thread(target=self._leaver, args=(number,)) for number in range(leavers)]
        self._threads += [threading.Thread(target=self._dawdler) for _ in range(dawdlers)]

    @contextmanager
    def flowing(self) -> Iterator[Seen]:
        """Traffic meanwhile; when the block is left every client has been answered, or calls it a hang."""
        for thread in self._threads:
            thread.start()
        try:
            yield self.seen
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(2 * HANG_S)
                if thread.is_alive():
                    self.seen.wrong.append("a client was never answered")

    def _client(self, number: int) -> None:
        turn = number
        while not self._stopping.is_set():
            kind, (content, right) = self._recordings[turn % len(self._recordings)]
            turn += 1
            began = time.monotonic()
            outcome, wrong = self._ask(content, right)
            with self._lock:
                self.seen.outcomes[outcome] += 1
                self.seen.wrong += [f"{kind}: {what}" for what in wrong]
                self.seen.slowest_s = max(self.seen.slowest_s, time.monotonic() - began)
            if outcome != "ok":
                self._stopping.wait(0.02)

    def _ask(self, content: bytes, right: dict[str, Any] | None) -> tuple[str, list[str]]:
        connection = http.client.HTTPConnection(self.server.url.removeprefix("http://"), timeout=HANG_S)
        with closing(connection):
            try:
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request("POST", "/v1/predict", content)
                response = connection.getresponse()
                answer = json.loads(response.read())
            except TimeoutError:
                return "hang", ["a request hung"]
            except ConnectionRefusedError:
                return "refused", []
            except (OSError, http.client.HTTPException, ValueError):
                return "cut", []
        if response.status == 200:
            return "ok", list(differences(answer, right)) if right else ["a 200 about what is no recording"]
        code = answer.get("code", "none")
        return code, [] if _CODES.get(code) == response.status else [f"{response.status} with code {code}"]

    def _leaver(self, number: int) -> None:
        """Leaves during the upload, while it waits, or as soon as an answer begins."""
        rng = np.random.default_rng(number)
        host, port = self.server.url.removeprefix("http://").split(":")
        while not self._stopping.is_set():
            _, (content, _) = self._recordings[int(rng.integers(len(self._recordings)))]
            head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            with suppress(OSError), closing(socket.create_connection((host, int(port)), timeout=HANG_S)) as client:
                match rng.integers(3):
                    case 0:
                        client.sendall(head + content[: int(rng.integers(len(content)))])
                    case 1:
                        client.sendall(head + content)
                        time.sleep(float(rng.uniform(0, 0.2)))
                    case _:
                        client.sendall(head + content)
                        client.recv(100)
            with self._lock:
                self.seen.outcomes["left"] += 1
            time.sleep(0.01)

    def _dawdler(self) -> None:
        host, port = self.server.url.removeprefix("http://").split(":")
        head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        while not self._stopping.is_set():
            with suppress(OSError), closing(socket.create_connection((host, int(port)), timeout=HANG_S)) as client:
                for byte in (head, *[b"R"] * 100):
                    client.sendall(byte)
                    if self._stopping.wait(0.5):
                        break
            with self._lock:
                self.seen.outcomes["dawdled"] += 1


def differences(answer: dict[str, Any], right: dict[str, Any]) -> Iterator[str]:
    """Where an answer is not the one that the same recording got in peace."""
    for what in ("genre", "probabilities"):
        found, expected = answer["windows"][what], right["windows"][what]
        if what == "genre" and found != expected:
            yield "a 200 names other genres"
        elif what == "probabilities" and not np.allclose(found, expected, atol=_TOLERANCE):
            yield "a 200 states other probabilities"
    if answer["track"]["sha256"] != right["track"]["sha256"]:
        yield "a 200 is about another recording"
