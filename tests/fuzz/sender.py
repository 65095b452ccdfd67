"""Clients that send mutants and check the responses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.fuzz.corpus import Origin
from tests.fuzz.mutations import Mutant, make_mutant
from tests.fuzz.tally import Tally

Check = Callable[[httpx.Response], Iterable[str]]
"""Yields what is wrong with a response."""


class Sender:
    """Sends mutants from several clients.

    Args:
        origins: Valid files.
        seed: Seed of the mutants.
        tally: Counts the responses.
        check: Checks a response.
        timeout_s: Time in seconds after which a request counts as hung.
        clients: Number of clients that send at the same time.
    """

    def __init__(
        self, origins: Sequence[Origin], seed: int, tally: Tally, check: Check, *, timeout_s: float, clients: int
    ) -> None:
        self.origins = origins
        self.tally = tally
        self._seed = seed
        self._check = check
        self._timeout_s = timeout_s
        self._clients = clients

    def send(self, url: str, numbers: range) -> None:
        """Send the mutants with these numbers, and wait for all responses."""
        with httpx.Client(timeout=self._timeout_s) as http, ThreadPoolExecutor(self._clients) as threads:
            list(threads.map(lambda number: self._send_one(http, url, number), numbers))

    def _send_one(self, http: httpx.Client, url: str, number: int) -> None:
        mutant = make_mutant(self.origins, self._seed, number)
        began = time.perf_counter()
        response: httpx.Response | None = None
        try:
            response = _post(http, url, mutant)
        except httpx.TimeoutException:
            problems = [f"no response within {time.perf_counter() - began:.0f} s"]
        except httpx.TransportError as error:
            problems = [f"no response: {error!r}"]
        else:
            problems = list(self._check(response))
        self.tally.add(mutant, response, time.perf_counter() - began, problems)


def _post(http: httpx.Client, url: str, mutant: Mutant) -> httpx.Response:
    """Send a mutant as the raw body if its number is odd, and as form data otherwise."""
    if mutant.number % 2:
        return http.post(url, content=mutant.content)
    return http.post(url, files={"file": (f"{mutant.number}.{mutant.suffix}", mutant.content)})
