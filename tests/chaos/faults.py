"""Faults to inject into the service while clients send requests."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil

from tests.chaos.supervisor import Supervisor
from tests.harness.processes import descendants
from tests.harness.waiting import until
from wholetrack.extraction.worker import WORKER_NAME

_STOP_S = 120.0

Inject = Callable[[Supervisor, float], int]
"""Injects a fault repeatedly for a number of seconds, and returns how often."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which parts of the service fail.

    Attributes:
        inject: Injects it into a service under load.
        expected_codes: Error codes that clients may receive in the meantime.
        loses_connections: Whether clients may get no response, because the process is killed.
        disconnecting_clients: Number of additional clients that disconnect before the response.
        settings: Settings of the service.
        max_growth_mib: Limit on the growth of resident memory. Python and onnxruntime keep memory that they have
            allocated once; a leak per request would exceed the limit after thousands of requests.
        small_disk: Whether uploads are stored on a file system that is almost full.
    """

    inject: Inject
    expected_codes: frozenset[str]
    loses_connections: bool = False
    disconnecting_clients: int = 0
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    max_growth_mib: float = 96.0
    small_disk: bool = False


def _every(pause_s: float, seconds: float) -> Iterator[int]:
    """Yield 0, 1, 2 and so on, with a pause after each, until the time is up."""
    began, number = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        yield number
        number += 1
        time.sleep(pause_s)


def _signal_one_of(
    processes: Callable[[Supervisor], list[psutil.Process]], number: signal.Signals, pause_s: float
) -> Inject:
    def inject(supervisor: Supervisor, seconds: float) -> int:
        rng, injections = np.random.default_rng(0), 0
        for _ in _every(pause_s, seconds):
            with suppress(psutil.NoSuchProcess):
                if found := processes(supervisor):
                    found[int(rng.integers(len(found)))].send_signal(number)
                    injections += 1
        return injections

    return inject


def _launchers(supervisor: Supervisor) -> list[psutil.Process]:
    """Return the launcher of the decoders and that of the feature workers."""
    return supervisor.server.process.children()


def _workers(supervisor: Supervisor) -> list[psutil.Process]:
    return [child for child, name in descendants(supervisor.server.process) if name == WORKER_NAME]


def _decoders(supervisor: Supervisor) -> list[psutil.Process]:
    """Return the decoders, including those that have not started ffmpeg yet."""
    workers = set(_workers(supervisor))
    return [child for launcher in _launchers(supervisor) for child in launcher.children() if child not in workers]


def _command(command: str, pause_s: float) -> Inject:
    def inject(supervisor: Supervisor, seconds: float) -> int:
        injections = 0
        for _ in _every(pause_s, seconds):
            supervisor.command(command)
            injections += 1
        return injections

    return inject


def _kill_process(supervisor: Supervisor, seconds: float) -> int:
    injections = 0
    for _ in _every(3.0, seconds):
        supervisor.wait_until_ready()
        time.sleep(1.0)
        supervisor.send_signal(signal.SIGKILL)
        injections += 1
    supervisor.wait_until_ready()
    return injections


def _terminate_process(supervisor: Supervisor, seconds: float) -> int:
    injections = 0
    for _ in _every(2.0, seconds):
        supervisor.wait_until_ready()
        time.sleep(1.0)
        _terminate_gracefully(supervisor)
        injections += 1
    supervisor.wait_until_ready()
    return injections


def _terminate_gracefully(supervisor: Supervisor) -> None:
    ended = len(supervisor.exit_statuses)
    supervisor.send_signal(signal.SIGTERM)
    until(lambda: len(supervisor.exit_statuses) > ended, seconds=_STOP_S, poll_s=0.02)
    assert supervisor.exit_statuses[-1] == 0, f"exit status {supervisor.exit_statuses[-1]} after SIGTERM"


def _exhaust_descriptors(supervisor: Supervisor, seconds: float) -> int:
    """Alternate between a limit close to the number of open descriptors and the normal limit."""
    injections = 0
    for number in _every(0.5, seconds):
        supervisor.limit_descriptors(None if number % 2 else supervisor.server.process.num_fds() + number % 8)
        injections += number % 2 == 0
    supervisor.limit_descriptors(None)
    return injections


def _wait(_: Supervisor, seconds: float) -> int:
    """Do nothing, for faults that are present from the beginning."""
    time.sleep(seconds)
    return 0


FAULTS: Mapping[str, Fault] = {
    "decoders killed": Fault(_signal_one_of(_decoders, signal.SIGKILL, 0.05), frozenset({"internal_error"})),
    "decoders stopped": Fault(
        _signal_one_of(_decoders, signal.SIGSTOP, 0.5),
        frozenset({"deadline_exceeded"}),
        settings={"request_timeout_s": 3},
    ),
    # All its decoders end with it. If it is killed before it has started any, no request fails.
    "launcher killed": Fault(_signal_one_of(_launchers, signal.SIGKILL, 2.0), frozenset({"internal_error"})),
    # The service replaces it if it does not reply for five seconds.
    "launcher stopped": Fault(_signal_one_of(_launchers, signal.SIGSTOP, 8.0), frozenset({"internal_error"})),
    # A track whose worker ends is decoded again, once.
    "feature workers killed": Fault(_signal_one_of(_workers, signal.SIGKILL, 0.5), frozenset({"internal_error"})),
    # The service replaces one that does not reply for twenty seconds.
    "feature workers stopped": Fault(
        _signal_one_of(_workers, signal.SIGSTOP, 2.0),
        frozenset({"deadline_exceeded", "internal_error"}),
        settings={"request_timeout_s": 3},
    ),
    # Each reopening of sessions fragments the heap: 33, 52 and 103 MiB in campaigns of 60, 150 and 60 s.
    "device thread dies": Fault(_command("die", 2.0), frozenset({"device_failed"}), max_growth_mib=160.0),
    # Threads that hang cannot be ended. When there are too many, the process exits and is restarted.
    "device thread hangs": Fault(
        _command("hang", 2.0),
        frozenset({"device_failed"}),
        loses_connections=True,
        settings={"device_timeout_s": 1},
        max_growth_mib=512.0,
    ),
    "process killed": Fault(_kill_process, frozenset(), loses_connections=True),
    # Connections that the kernel has accepted but the service has not are lost when the service closes its socket.
    "process terminated": Fault(_terminate_process, frozenset({"draining"}), loses_connections=True),
    "disk full": Fault(_wait, frozenset({"overloaded"}), small_disk=True),
    "descriptors exhausted": Fault(_exhaust_descriptors, frozenset({"overloaded"}), loses_connections=True),
    "clients disconnect": Fault(_wait, frozenset({"overloaded"}), disconnecting_clients=40),
}
