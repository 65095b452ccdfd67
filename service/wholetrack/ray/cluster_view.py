"""What an ingress replica knows about the other replicas, asked for every few seconds."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from wholetrack.ray.messages import AnalysisInfo, NetworkInfo, NetworkKey

_log = logging.getLogger(__name__)

_INTERVAL_S = 5.0
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The replicas that have responded.

    Attributes:
        analysis: Those that decode.
        networks: The networks of each of the others.
    """

    analysis: tuple[AnalysisInfo, ...]
    networks: tuple[dict[NetworkKey, NetworkInfo], ...]

    @property
    def tracks_at_once(self) -> int:
        """Number of tracks that all of them decode at the same time."""
        return sum(info.tracks_at_once for info in self.analysis)

    @property
    def sandbox_layers(self) -> frozenset[str]:
        """The layers that all of them apply."""
        layers = [info.sandbox_layers for info in self.analysis]
        return frozenset.intersection(*layers) if layers else frozenset()

    def runs(self, key: NetworkKey) -> bool:
        """Return whether a replica has a working device for a network."""
        return any(networks[key].healthy for networks in self.networks if key in networks)


class ClusterView:
    """Asks all replicas what they can do, again and again.

    Args:
        analysis: Handle of the deployment that decodes.
        network: Handle of the deployment of the networks.

    Attributes:
        snapshot: The last responses.
    """

    def __init__(self, analysis: DeploymentHandle[Any], network: DeploymentHandle[Any]) -> None:
        self._analysis = analysis
        self._network = network
        self._closed = threading.Event()
        self.snapshot = self._ask()
        self._thread = threading.Thread(target=self._run, name="cluster-view", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_INTERVAL_S):
            self.snapshot = self._ask()

    def _ask(self) -> Snapshot:
        return Snapshot(tuple(_responses(self._analysis)), tuple(_responses(self._network)))


def _responses(handle: DeploymentHandle[Any]) -> list[Any]:
    """Return what the replicas of a deployment respond; nothing for those that do not."""
    try:
        found = handle.broadcast("describe").results(timeout_s=_TIMEOUT_S, return_exceptions=True)
    except Exception as error:  # noqa: BLE001 - Ray raises several classes without a common base
        _log.warning("no replica of %s responds: %s", handle.deployment_name, error)
        return []
    return [response for response in found if not isinstance(response, Exception)]
