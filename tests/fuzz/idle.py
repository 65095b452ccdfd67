"""Checks of the service between the parts of a campaign, when no request is in progress."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import psutil

from tests.fuzz.corpus import SECONDS, Origin
from tests.fuzz.tally import Tally
from tests.harness.server import Server
from tests.harness.waiting import until

_MIB = 1 << 20
# The same windows in other batches: the results of a network differ in their last bits, and have four decimals.
_TOLERANCE = 2e-4
_DRAIN_S = 60.0


class IdleService:
    """A service with no requests in progress: nothing may be left of earlier ones, and predictions stay the same.

    Args:
        server: The service.
        valid: A valid file whose prediction is checked.
        tally: The tally to which problems are reported.

    Attributes:
        url: Address that requests everything a prediction can contain.
    """

    def __init__(self, server: Server, valid: Origin, tally: Tally) -> None:
        self._server = server
        self._valid = valid
        self._tally = tally
        (name,) = (model["name"] for model in server.get("/v1/models").json()["models"] if model["default"])
        card = server.get(f"/v1/models/{name}").json()["card"]
        self.url = f"{server.url}/v1/predict?top_k={len(card['labels'])}"
        self._probabilities = self._predict()
        # Descriptors of files cannot be told from those of connections while connections open or close.
        until(lambda: self._connections() == 0, seconds=_DRAIN_S, poll_s=0.05)
        self._descriptors = server.descriptors()

    def memory_mib(self) -> float:
        """Return the resident memory of the service without its decoders, in MiB."""
        return round(self._server.process.memory_info().rss / _MIB, 1)

    def check(self) -> None:
        """Check the prediction for the valid file, and what is left over after all clients have disconnected."""
        if not np.allclose(self._predict(), self._probabilities, atol=_TOLERANCE):
            self._tally.report("the prediction for a valid file changed")
        try:
            self._server.wait_until_clean(_DRAIN_S)
        except AssertionError as error:
            self._tally.report(f"left over: {error}")
        deadline = time.monotonic() + _DRAIN_S
        while (connections := self._connections()) > 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        if connections > 0:
            self._tally.report(f"{connections} connections were not closed")
        if (descriptors := self._server.descriptors() - self._descriptors) > 0:
            self._tally.report(f"{descriptors} descriptors were not closed")

    def _connections(self) -> int:
        return sum(one.status != psutil.CONN_LISTEN for one in self._server.process.net_connections())

    def _predict(self) -> Any:
        """Return the probabilities of all windows of the valid file."""
        response = self._server.post(self._valid.content)
        assert response.status_code == 200, response.text
        body = response.json()
        codes = {warning["code"] for warning in body["warnings"]}
        # The file sounds like no music.
        assert (body["track"]["duration_s"], codes - {"out_of_domain"}) == (SECONDS, set()), body
        return body["windows"]["probabilities"]
