"""A cache of predictions: a recording with the same bytes and parameters as an earlier one is not decoded again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

from cachetools import LRUCache

from wholetrack.contracts import Detail, StageTimes, TrackPrediction
from wholetrack.inference.outputs import Keep
from wholetrack.served_model import ServedModel

_NO_TIME = StageTimes(decode=0.0, features=0.0, queue=0.0, inference=0.0)
# Approximate size of a prediction without the arrays of its windows.
_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Everything that determines a prediction, with the model's defaults in place of omitted parameters.

    Attributes:
        sha256: SHA-256 of the recording, in hexadecimal.
        model: Name and version of the model.
        hop: Time between window starts in seconds.
        taxonomy: Name of the taxonomy in which the genres are read; None for the labels of the model.
        keep: What is kept of each output of the network, and so the detail of the tags and the embedding.
    """

    sha256: str
    model: tuple[str, str]
    hop: Fraction
    taxonomy: str | None
    keep: tuple[Keep, ...]

    @classmethod
    def of(
        cls,
        sha256: str,
        served: ServedModel,
        *,
        hop_s: float | None,
        taxonomy: str | None,
        tags: Detail | None,
        embedding: Detail,
    ) -> Self:
        """Return the key of a request; the parameters are those of :meth:`~wholetrack.pipeline.Pipeline.predict`.

        Raises:
            ServiceError: ``invalid_parameter`` if the model does not support the parameters.
        """
        return cls(
            sha256,
            (served.card.name, served.card.version),
            hop=served.grid(hop_s).hop,
            taxonomy=taxonomy,
            keep=served.keep(tags=tags, embedding=embedding),
        )


class PredictionCache:
    """The most recently used predictions, in a bounded amount of memory. Thread-safe.

    Args:
        max_bytes: Total size of the predictions; 0 caches nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._predictions: LRUCache[CacheKey, TrackPrediction] = LRUCache(max_bytes, getsizeof=_size)

    def get(self, key: CacheKey) -> TrackPrediction | None:
        """Return the cached prediction, with all stage times set to zero, or None."""
        with self._lock:
            prediction: TrackPrediction | None = self._predictions.get(key)
        return prediction and replace(prediction, times=_NO_TIME)

    def put(self, key: CacheKey, prediction: TrackPrediction) -> None:
        """Cache a prediction, unless it is larger than the whole cache."""
        if _size(prediction) <= self._predictions.maxsize:
            with self._lock:
                self._predictions[key] = prediction


def _size(prediction: TrackPrediction) -> int:
    windows = prediction.windows
    size = _OVERHEAD_BYTES + windows.start_s.nbytes + windows.probabilities.nbytes + windows.silent.nbytes
    for optional in (prediction.tags, prediction.embedding):
        if optional:
            times = optional.times
            arrays = (times.start_s, times.silent, optional.track, optional.windows)
            size += sum(array.nbytes for array in arrays if array is not None)
    return size
