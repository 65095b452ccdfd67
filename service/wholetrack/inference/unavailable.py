"""The engine of a model that did not run at start-up. It rejects tracks, so that the other models can be served."""

from __future__ import annotations

from typing import NoReturn

from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.inference.counts import DeviceCounts, EngineCounts
from wholetrack.inference.worker import Classifier


class UnavailableEngine:
    """An engine without workers, which accepts no tracks. The attributes are those of an engine.

    Args:
        reason: Why the model does not run, as a clause that clients may read.
        device: The device that could not run it.
        precision: Number format of the network.
    """

    available = False
    healthy = False
    max_batch = 1
    min_share = 1

    def __init__(self, reason: str, *, device: str, precision: str) -> None:
        self._reason = reason
        self.device = device
        self.precision = precision
        self.classifiers: list[Classifier] = []

    @property
    def unavailable_reason(self) -> str | None:
        """Why the model does not run."""
        return self._reason

    def counts(self) -> EngineCounts:
        """Return a snapshot with a device that is not healthy."""
        return EngineCounts({self.device: DeviceCounts()}, waiting=0, tracks=0)

    def open_track(self, *, weight: int = 1, keep: object = None, convert: object = None) -> NoReturn:
        """Raise the error of every request for this model.

        Raises:
            ServiceError: ``model_unavailable``.
        """
        del weight, keep, convert
        raise model_unavailable(self._reason)

    def close(self) -> None:
        """Do nothing."""


def model_unavailable(reason: str) -> ServiceError:
    """Return the error for a model that cannot run until the service is restarted.

    Args:
        reason: Why, as a clause.
    """
    return ServiceError(
        ErrorKind.MODEL_UNAVAILABLE, f"The model cannot run on this server: {reason}. Choose another one."
    )
