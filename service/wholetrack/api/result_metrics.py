"""Metrics about what is predicted, so that a change of the music or of a model is visible."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from wholetrack.api.schemas import PredictionResponse

_CONFIDENCES = tuple(i / 10 for i in range(1, 11))
_DOMAINS = {True: "inside", False: "outside", None: "unknown"}


class ResultMetrics:
    """The genres, confidence and domain of successful predictions, by model.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._genres = Counter(
            "wholetrack_predicted_genres",
            "Successful predictions in the model's labels, by genre with the largest summed score; silent for a track "
            "without sound.",
            ["model", "genre"],
            registry=registry,
        )
        self._confidence = Histogram(
            "wholetrack_confidence",
            "Confidence of successful predictions in the model's labels.",
            ["model"],
            buckets=_CONFIDENCES,
            registry=registry,
        )
        self._domain = Counter(
            "wholetrack_domain",
            "Successful predictions by whether the recording resembles the training data: inside, outside or unknown.",
            ["model", "domain"],
            registry=registry,
        )

    def count(self, model: str, content: PredictionResponse) -> None:
        """Count one successful prediction of a model, by the key that all metrics use."""
        prediction = content.prediction
        # In a taxonomy, the same music has other genres and another confidence.
        if content.model.taxonomy is None:
            self._genres.labels(model, prediction.summed_score.genre or "silent").inc()
            self._confidence.labels(model).observe(prediction.confidence)
        self._domain.labels(model, _DOMAINS[prediction.in_domain]).inc()
