"""What is done to the service while clients ask it, each for a number of seconds."""

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

Act = Callable[[Supervisor, float], int]
"""Does harm for so many seconds, and says how often."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which parts die.

    Attributes:
        act: does it to a service under load.
        expected: codes of errors that clients may get meanwhile, beside ``ok``.
        may_be_cut: whether connections may end, the process being killed.
        leavers: clients who never wait for an answer.
        settings: of the service.
        memory_mib: that may be taken beyond what was. Python and onnxruntime keep what they once had; what requests
            would leave behind, thousands of them would make seen.
        small_disk: whether uploads lie where there is hardly room.
    """

    act: Act
    expected: frozenset[str]
    may_be_cut: bool = False
    leavers: int = 0
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    memory_mib: float = 96.0
    small_disk: bool = False


def _every(pause_s: float, seconds: float) -> Iterator[int]:
    began, number = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        yield number
        number += 1
        time.sleep(pause_s)


def _signal(which: Callable[[Supervisor], list[psutil.Process]], number: signal.Signals, pause_s: float) -> Act:
    def act(supervisor: Supervisor, seconds: float) -> int:
        rng, hits = np.random.default_rng(0), 0
        for _ in _every(pause_s, seconds):
            with suppress(psutil.NoSuchProcess):
                if found := which(supervisor):
                    found[int(rng.integers(len(found)))].send_signal(number)
                    hits += 1
        return hits

    return act


def _launchers(supervisor: Supervisor) -> list[psutil.Process]:
    return supervisor.server.process.children()


def _decoders(supervisor: Supervisor) -> list[psutil.Process]:
    """Those that decode, and those that are about to."""
    return [child for launcher in _launchers(supervisor) for child in launcher.children()]


def _order(what: str, pause_s: float) -> Act:
    def act(supervisor: Supervisor, seconds: float) -> int:
        hits = 0
        for _ in _every(pause_s, seconds):
            supervisor.order(what)
            hits += 1
        return hits

    return act


def _kill_process(supervisor: Supervisor, seconds: float) -> int:
    hits = 0
    for _ in _every(3.0, seconds):
        supervisor.wait_until_ready()
        time.sleep(1.0)
        supervisor.send(signal.SIGKILL)
        hits += 1
    supervisor.wait_until_ready()
    return hits


def _stop_process(supervisor: Supervisor, seconds: float) -> int:
    hits = 0
    for _ in _every(2.0, seconds):
        ended = len(supervisor.ended)
        supervisor.wait_until_ready()
        time.sleep(1.0)
        supervisor.send(signal.SIGTERM)
        while len(supervisor.ended) == ended:
            time.sleep(0.02)
        assert supervisor.ended[-1] == 0, f"told to stop, it ended with {supervisor.ended[-1]}"
        hits += 1
    supervisor.wait_until_ready()
    return hits


def _take_descriptors(supervisor: Supervisor, seconds: float) -> int:
    hits = 0
    for number in _every(0.5, seconds):
        supervisor.limit_descriptors(None if number % 2 else supervisor.server.process.num_fds() + number % 8)
        hits += number % 2 == 0
    supervisor.limit_descriptors(None)
    return hits


def _only_wait(_: Supervisor, seconds: float) -> int:
    """For what is there from the beginning, which the answers must show."""
    time.sleep(seconds)
    return 0


FAULTS: Mapping[str, Fault] = {
    "decoders killed": Fault(_signal(_decoders, signal.SIGKILL, 0.05), frozenset({"internal_error"})),
    "decoders stopped": Fault(
        _signal(_decoders, signal.SIGSTOP, 0.5), frozenset({"deadline_exceeded"}), settings={"request_timeout_s": 3}
    ),
    # With it every decoder dies. One that is killed before it began has served nobody.
    "launcher killed": Fault(_signal(_launchers, signal.SIGKILL, 2.0), frozenset({"internal_error"})),
    # It is missed after five seconds, and replaced.
    "launcher stopped": Fault(_signal(_launchers, signal.SIGSTOP, 8.0), frozenset({"internal_error"})),
    # Each death opens sessions anew, whose allocations leave holes: 33, 52, 103 MiB in campaigns of 60, 150, 60 s.
    "device thread dies": Fault(_order("die", 2.0), frozenset({"device_failed"}), memory_mib=160.0),
    # Threads that hang cannot be ended: when there are too many, the process ends for its supervisor.
    "device thread hangs": Fault(
        _order("hang", 2.0),
        frozenset({"device_failed"}),
        may_be_cut=True,
        settings={"device_timeout_s": 1},
        memory_mib=512.0,
    ),
    "process killed": Fault(_kill_process, frozenset(), may_be_cut=True),
    # Who stands in the kernel's queue when the door closes was never let in, and is cut.
    "process told to stop": Fault(_stop_process, frozenset({"draining"}), may_be_cut=True),
    "no room on the disk": Fault(_only_wait, frozenset({"overloaded"}), small_disk=True),
    "no descriptors left": Fault(_take_descriptors, frozenset({"overloaded"}), may_be_cut=True),
    "clients who leave": Fault(_only_wait, frozenset({"overloaded"}), leavers=40),
}
