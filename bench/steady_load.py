"""A constant number of clients, and what they and the service do during a time window in which the load is steady.

Each client is a process of its own, so that clients share no interpreter lock with each other or with the benchmark.
"""

from __future__ import annotations

import http.client
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import psutil

from bench.clients import Load
from tests.harness.server import Server

_Response = tuple[int, float, float]
"""Number of the client, and when its request began and ended, in the monotonic time that all processes share."""

_TIMEOUT_S = 300.0
_POLL_S = 0.02
# A fresh interpreter for each client: a fork of the benchmark would inherit its threads' locks.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU times so far, in seconds.

    Attributes:
        machine_s: All processes of the machine.
        service_s: The process of the service and its decoders that have ended.
        main_process_s: The process of the service alone.
    """

    machine_s: float
    service_s: float
    main_process_s: float

    @classmethod
    def of(cls, server: Server) -> CpuTimes:
        """Read the CPU times."""
        machine, main = psutil.cpu_times(), server.process.cpu_times()
        busy = machine.user + machine.nice + machine.system + machine.irq + machine.softirq + machine.steal
        return cls(busy, server.cpu_s(), main.user + main.system)


@dataclass(frozen=True, slots=True)
class SteadyLoad:
    """What happened during the time window.

    Attributes:
        load: Latencies of the responses that arrived in the time window, and its length.
        before: CPU times at its beginning.
        after: CPU times at its end.
    """

    load: Load
    before: CpuTimes
    after: CpuTimes

    @property
    def main_process_cpu_ms(self) -> float:
        """CPU time of the service's process for each track, in milliseconds."""
        return 1e3 * (self.after.main_process_s - self.before.main_process_s) / len(self.load.latencies_s)

    @property
    def service_cpu_s(self) -> float:
        """CPU time of the service and its decoders for each track, in seconds."""
        return (self.after.service_s - self.before.service_s) / len(self.load.latencies_s)

    def as_dict(self) -> dict[str, Any]:
        """Return throughput, latencies and CPU times for JSON."""
        return {
            **self.load.as_dict(),
            "busy_cores": round((self.after.machine_s - self.before.machine_s) / self.load.seconds, 2),
            "cpu_s_per_track": round(self.service_cpu_s, 4),
            "main_process_cpu_ms_per_track": round(self.main_process_cpu_ms, 1),
        }


def measure_load(
    server: Server,
    song: Path,
    *,
    clients: int,
    seconds: float,
    during: AbstractContextManager[object] | None = None,
) -> SteadyLoad:
    """Post a song, again and again, from a constant number of clients.

    The time window begins when every client has received a response, and contains at least as many responses.

    Args:
        server: The service.
        song: The recording that is posted, as the raw body.
        clients: Number of clients, each with one request at a time.
        seconds: Minimum length of the time window.
        during: Entered at the beginning of the time window and left at its end.
    """
    with _running_clients(server.url, song, clients) as responses:
        waiting_for = set(range(clients))
        while waiting_for:
            waiting_for.discard(_next_response(responses)[0])
        before, began = CpuTimes.of(server), time.monotonic()
        latencies: list[float] = []
        with during or nullcontext():
            while time.monotonic() < began + seconds or len(latencies) < clients:
                time.sleep(_POLL_S)
                while not responses.empty():
                    _, sent, received = _next_response(responses)
                    if received > began:
                        latencies.append(received - sent)
        after, ended = CpuTimes.of(server), time.monotonic()
    # The requests that the end of the clients interrupted must not burden the next measurement.
    server.wait_until_clean()
    return SteadyLoad(Load(clients, tuple(latencies), ended - began), before, after)


@contextmanager
def _running_clients(url: str, song: Path, n_clients: int) -> Iterator[SimpleQueue[_Response | Exception]]:
    """Run clients during the block, and yield a queue of their responses."""
    responses: SimpleQueue[_Response | Exception] = _CONTEXT.SimpleQueue()
    processes = [
        _CONTEXT.Process(target=_send_requests, args=(number, url, song, responses), daemon=True)
        for number in range(n_clients)
    ]
    for process in processes:
        process.start()
    try:
        yield responses
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _next_response(responses: SimpleQueue[_Response | Exception]) -> _Response:
    response = responses.get()
    if isinstance(response, Exception):
        raise response
    return response


def _send_requests(number: int, url: str, song: Path, responses: SimpleQueue[_Response | Exception]) -> None:
    """Send one request after another, until the process is killed or a request fails."""
    content = song.read_bytes()
    try:
        with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=_TIMEOUT_S)) as connection:
            while True:
                began = time.monotonic()
                _send(connection, content)
                responses.put((number, began, time.monotonic()))
    except (OSError, http.client.HTTPException) as error:
        responses.put(error)


def _send(connection: http.client.HTTPConnection, content: bytes) -> None:
    connection.request("POST", "/v1/predict?windows=none", content)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise http.client.HTTPException(f"status {response.status}: {body.decode()}")
