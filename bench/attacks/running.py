"""Running the clients of an attack in a process of their own, so that they do not slow down the measurement."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from bench.attacks.connections import Target
from bench.attacks.kinds import ATTACKS, Client
from bench.attacks.tally import Tally

_PROCESSES = multiprocessing.get_context("spawn")


class RunningAttack:
    """An attack in progress.

    Attributes:
        tally: What its clients have done, once it has ended.
    """

    def __init__(self) -> None:
        self.tally = Tally()


@contextmanager
def running_attack(name: str, target: Target, *, seconds: float) -> Iterator[RunningAttack]:
    """Attack a service for a while; at the end of the block, wait until the attack has ended.

    Args:
        name: Name of the attack.
        target: What to attack.
        seconds: How long to attack it.
    """
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_attack, args=(name, target, seconds, sender), daemon=True)
    process.start()
    attack = RunningAttack()
    try:
        receiver.recv()  # The clients are starting.
        yield attack
        attack.tally = receiver.recv()
    finally:
        process.terminate()
        process.join()


def _attack(name: str, target: Target, seconds: float, sender: Connection) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    attack = ATTACKS[name]
    end = time.monotonic() + seconds
    sender.send(None)
    with ThreadPoolExecutor(attack.n_clients) as clients:
        tallies = [clients.submit(_repeat, attack.client, target, end) for _ in range(attack.n_clients)]
        sender.send(Tally.total(tally.result() for tally in tallies))


def _repeat(client: Client, target: Target, end: float) -> Tally:
    """Run a client until the end of the attack; it starts again if the service disconnects it."""
    tally = Tally()
    while time.monotonic() < end:
        with suppress(OSError):
            client(target, end, tally)
        time.sleep(0.01)
    return tally
