"""Networks in actors of their own, for clusters whose GPUs are on other nodes than most of their CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from wholetrack.catalogue.cluster import Cluster
from wholetrack.catalogue.opening import needed_bundles
from wholetrack.catalogue.partition_actor import settings_of_actor
from wholetrack.contracts import Rows, Windows
from wholetrack.errors import ServiceError
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.devices import OpenedModel
from wholetrack.inference.outputs import Keep
from wholetrack.inference.remote import RemoteSession
from wholetrack.inference.worker import Classifier, UnreachableError
from wholetrack.settings import Settings
from wholetrack.startup import limit_malloc_arenas, served_models

# Calls at the same time in an actor, so that its batches are full.
_CALLS_PER_NETWORK = 64
# Calls in progress from each actor to each network: while the windows of one are classified, others are on their way.
_CALLS_AT_ONCE = 2
# Of the time after which a run counts as hung.
_RUN_SHARE = 1 / 2
_LOST = (RayActorError, NodeDiedError, ObjectLostError, WorkerCrashedError)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """The device of a network, its number format, and how many consecutive windows cost less together."""

    device: str
    precision: str
    min_share: int


class NetworkActor:
    """Runs windows in the batches of an engine, whose size is best for the device.

    Args:
        model: Name of the model, or ``NAME@VERSION``; None for the default model.
        settings: The settings that are set explicitly where the command runs.
        cpus: CPUs of the actor.
    """

    def __init__(self, model: str | None, settings: dict[str, Any], cpus: int) -> None:
        own = settings_of_actor(settings, cpus=cpus)
        limit_malloc_arenas()
        key, bundles = needed_bundles(own, model)
        self._served = served_models(bundles, key, own.model_copy(update={"default_model": key}))[key]

    def describe(self) -> NetworkInfo:
        """Return the device of the network."""
        engine = self._served.engine
        return NetworkInfo(engine.device, engine.precision, engine.min_share)

    def run(self, windows: Windows) -> Rows | None:
        """Return the outputs of the network for normalised windows; None if the device has failed.

        Raises:
            ServiceError: If the network cannot classify these windows.
        """
        engine, kinds = self._served.engine, self._served.card.outputs.kinds
        try:
            # The windows of a call are to the engine what those of a track are.
            with engine.open_track(keep=[Keep.ROWS] * len(kinds)) as queue:
                queue.put(windows)
                outputs = queue.finish()
        except ServiceError:
            if engine.healthy:
                raise
            return None
        assert outputs is not None
        return Rows(tuple(array for array in outputs.rows if array is not None))


class ActorNetworks:
    """Opens a model as sessions on networks in other actors.

    Args:
        actors: The actors.
        settings: The settings.
        n_models: Number of models; it does not matter here.
    """

    def __init__(self, actors: Sequence[Any], settings: Settings, n_models: int) -> None:
        del n_models
        self._actors = actors
        self._timeout_s = settings.device_timeout_s * _RUN_SHARE

    def open(self, bundle: Bundle) -> OpenedModel:
        """Open sessions for a bundle."""
        infos: list[NetworkInfo] = ray.get([actor.describe.remote() for actor in self._actors])
        sessions = [
            RemoteSession(
                bundle.card,
                partial(_send, actor),
                device=info.device,
                precision=info.precision,
                timeout_s=self._timeout_s,
            )
            for actor, info in zip(self._actors, infos, strict=True)
        ]
        return OpenedModel(sessions * _CALLS_AT_ONCE, infos[0].min_share)

    def reopen(self, bundle: Bundle, failed: Classifier) -> Classifier:
        """Return the same session, which has no state."""
        del bundle
        return failed


def start_networks(
    model: str | None, settings: dict[str, Any], cluster: Cluster, *, cpus: int
) -> partial[ActorNetworks]:
    """Start actors that run a network, and return what opens sessions on them.

    Args:
        model: Name of the model, or ``NAME@VERSION``; None for the default model.
        settings: The settings that are set explicitly where the command runs.
        cluster: Number of actors, and their GPUs.
        cpus: CPUs of each actor without a GPU; one with a GPU needs one.
    """
    needed = 1 if cluster.gpus_per_actor else cpus
    remote: Any = ray.remote(NetworkActor).options(
        num_cpus=needed, num_gpus=cluster.gpus_per_actor, max_restarts=-1, max_concurrency=_CALLS_PER_NETWORK
    )
    actors = [remote.remote(model, settings, needed) for _ in range(cluster.networks)]
    # They have to have their place before the others take all processors.
    ray.get([actor.describe.remote() for actor in actors])
    return partial(ActorNetworks, actors)


def _send(actor: Any, windows: Windows, *, timeout_s: float) -> Rows:  # noqa: ANN401 - Ray's handles have no types
    call: ray.ObjectRef[Rows | None] = actor.run.remote(windows)
    try:
        outputs = ray.get(call, timeout=timeout_s)
    except GetTimeoutError as error:
        raise UnreachableError(f"no response within {timeout_s:.1f} s") from error
    except RayTaskError:
        # The network cannot classify these windows.
        raise
    except _LOST as error:
        raise UnreachableError(str(error).partition("\n")[0]) from error
    if outputs is None:
        raise UnreachableError("its device has failed")
    return outputs
