"""What predicts partitions in a cluster. Ray runs this class in processes of their own, on any node."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from typing import Any

from wholetrack.catalogue.errors import CatalogueError, ResumableError
from wholetrack.catalogue.local import predict_partitions
from wholetrack.catalogue.manifest import Manifest
from wholetrack.catalogue.opening import ModelDevices
from wholetrack.catalogue.workplace import CatalogueOptions, Workplace, open_workplace
from wholetrack.logs import configure_logs
from wholetrack.part_of_machine import for_part_of_machine
from wholetrack.settings import Settings

_OPENING_ATTEMPTS = 3


def settings_of_actor(given: dict[str, Any], *, cpus: int) -> Settings:
    """Configure the logs of an actor, and return its settings.

    Args:
        given: The settings that are set explicitly where the command runs.
        cpus: CPUs of the actor.
    """
    configure_logs(level="warning", log_format="text")
    return for_part_of_machine(Settings.model_validate(given), cpus=cpus)


class PartitionActor:
    """Predicts and commits one partition after the other.

    Args:
        options: What to predict.
        settings: The settings that are set explicitly where the command runs.
        cpus: CPUs of the actor.
        devices: Where the network runs; None for the devices of the actor.
    """

    def __init__(
        self, options: CatalogueOptions, settings: dict[str, Any], cpus: int, devices: ModelDevices | None
    ) -> None:
        self._options = options
        self._settings = settings
        self._cpus = cpus
        self._devices = devices
        self._opened = ExitStack()
        self._workplace: tuple[Workplace, Manifest] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Predict and commit a partition.

        Args:
            batch: Its ``index``.

        Returns:
            The number of files that were ``predicted`` and ``failed``, or an ``error`` that ends the run.
        """
        (index,) = batch["index"].tolist()
        try:
            predicted, failed = self._predict(index)
        except (CatalogueError, ResumableError, OSError) as error:
            return {"predicted": [0], "failed": [0], "error": [f"on {socket.gethostname()}: {error}"]}
        return {"predicted": [predicted], "failed": [failed], "error": [""]}

    def _predict(self, index: int) -> tuple[int, int]:
        workplace, manifest = self._workplace or self._open()
        (result,) = predict_partitions(
            [manifest.partition(index)], workplace.predictor, tracks_at_once=workplace.settings.tracks_at_once
        )
        workplace.commit(result)
        return len(result.predicted), len(result.failed)

    def _open(self) -> tuple[Workplace, Manifest]:
        workplace = self._open_workplace()
        manifest = workplace.target.manifest(workplace.spec())
        if manifest is None:
            raise ResumableError("the manifest is no longer there")
        self._workplace = workplace, manifest
        return self._workplace

    def _open_workplace(self) -> Workplace:
        """Open the stores and the pipeline. On a node that is busy, the first attempts may take too long."""
        settings = settings_of_actor(self._settings, cpus=self._cpus)
        for _ in range(_OPENING_ATTEMPTS - 1):
            with suppress(CatalogueError):
                return self._opened.enter_context(open_workplace(self._options, settings, devices=self._devices))
        return self._opened.enter_context(open_workplace(self._options, settings, devices=self._devices))
