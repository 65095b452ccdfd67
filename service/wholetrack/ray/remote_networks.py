"""Opening models whose networks run in the deployment of the networks."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from wholetrack.contracts import Rows, Windows
from wholetrack.errors import UnavailableModelError
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.devices import OpenedModel
from wholetrack.inference.remote import RemoteSession
from wholetrack.inference.worker import Classifier, UnreachableError
from wholetrack.ray.messages import NetworkInfo, NetworkKey, NotClassified
from wholetrack.settings import Settings

REPLICA_ERRORS = (
    RayActorError,
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    NodeDiedError,
    ObjectLostError,
    WorkerCrashedError,
)
"""What a call raises if its replica is lost, or none is there; another attempt may succeed."""

# Calls in progress for each network and replica: while the windows of one are classified, others are on their way.
_CALLS_AT_ONCE = 2
# Starting a replica of the networks takes seconds, and a new machine for it a minute or more.
_START_TIMEOUT_S = 600.0
# Of the time after which a run counts as hung.
_RUN_SHARE = 1 / 2


class RemoteNetworks:
    """Opens models as sessions on networks in other replicas.

    Args:
        network: Handle of the deployment.
        settings: The settings.
        n_models: Number of models; it does not matter here.
    """

    def __init__(self, network: DeploymentHandle[Any], settings: Settings, n_models: int) -> None:
        del n_models
        self._network = network
        self._timeout_s = settings.device_timeout_s * _RUN_SHARE
        self._infos: dict[NetworkKey, NetworkInfo] = network.describe.remote().result(timeout_s=_START_TIMEOUT_S)

    def open(self, bundle: Bundle) -> OpenedModel:
        """Open a session for a bundle.

        Raises:
            UnavailableModelError: If the network does not run.
        """
        key = (bundle.card.name, bundle.card.version)
        info = self._infos.get(key)
        if info is None:
            reason = "no replica runs its network"
            raise UnavailableModelError(f"{bundle.card.name}: {reason}", device="none", reason=reason)
        if info.unavailable_reason is not None:
            raise UnavailableModelError(
                f"{bundle.card.name} does not run: {info.unavailable_reason}",
                device=info.device,
                reason=info.unavailable_reason,
            )
        session = RemoteSession(
            bundle.card,
            partial(self._send, key),
            device=info.device,
            precision=info.precision,
            timeout_s=self._timeout_s,
        )
        return OpenedModel([session] * _CALLS_AT_ONCE, info.min_share, info.cpu_fallback)

    def reopen(self, bundle: Bundle, failed: Classifier) -> Classifier:
        """Return the same session, which has no state."""
        del bundle
        return failed

    def _send(self, key: NetworkKey, windows: Windows, *, timeout_s: float) -> Rows:
        response = cast("DeploymentResponse[Rows | NotClassified]", self._network.run.remote(key, windows))
        try:
            outputs = response.result(timeout_s=timeout_s)
        except (TimeoutError, GetTimeoutError) as error:
            response.cancel()
            raise UnreachableError(f"no response within {timeout_s:.1f} s") from error
        except RayTaskError:
            # The replica has raised an error because of these windows.
            raise
        except REPLICA_ERRORS as error:
            raise UnreachableError(str(error).partition("\n")[0]) from error
        if isinstance(outputs, NotClassified):
            raise UnreachableError(outputs.reason) if outputs.again else RuntimeError(outputs.reason)
        return outputs
