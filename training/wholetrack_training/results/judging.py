"""Classifies the recordings that models are judged by with the service's own pipeline, and keeps the outputs.

Each recording is decoded once, and classified by the network that was trained on none of its artists.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import Detail, ModelCard
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.extraction.workers import FeatureWorkers
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.engine import Engine
from wholetrack.inference.session import open_session
from wholetrack.pipeline import Pipeline
from wholetrack.served_model import ServedModel
from wholetrack.settings import DeviceChoice, Settings
from wholetrack_training.errors import DataError
from wholetrack_training.results.audio_sets import JudgedRecording

_log = logging.getLogger(__name__)

_MAX_DURATION_S = 600.0
_REPORT_EVERY = 50


@dataclass(frozen=True, slots=True)
class ClassifiedSet:
    """The outputs of the networks for a set of recordings.

    Attributes:
        names: Name of each recording.
        groups: What is known of each recording, see :class:`.audio_sets.JudgedRecording`.
        folds: Fold of each recording, ``[n_recordings]``; 0 for those that the published network classified.
        agreed: Whether listeners agree, ``[n_recordings]``.
        n_windows: Number of windows with sound of each recording, ``[n_recordings]``.
        logs: Logarithm of the probability of each label, ``[n_windows_of_all, n_labels]``.
        tags: Probability of each tag for the recording, ``[n_recordings, n_tags]``.
        window_tags: Logits of some tags of each window, ``[n_windows_of_all, n_chosen]``.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    folds: NDArray[np.int_]
    agreed: NDArray[np.bool_]
    n_windows: NDArray[np.int_]
    logs: NDArray[np.float32]
    tags: NDArray[np.float32]
    window_tags: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def owner(self) -> NDArray[np.int_]:
        """Index of the recording of each window."""
        return np.repeat(np.arange(len(self)), self.n_windows)


class JudgedPipeline:
    """The service's pipeline with the networks of all folds and the published one.

    Args:
        bundles: The network for each fold; 0 for the published one.
    """

    def __init__(self, bundles: Mapping[int, Bundle]) -> None:
        settings = Settings(device=DeviceChoice.CPU)
        models = {
            str(fold): ServedModel(bundle, Engine(open_session(bundle, settings))) for fold, bundle in bundles.items()
        }
        self._pipeline = Pipeline(
            FfmpegDecoder(find_ffmpeg()),
            FeatureWorkers(1, max_tracks=1),
            models,
            default_model=next(iter(models)),
            tracks_at_once=1,
            tracks_open=dict.fromkeys(DecoderMemory, 1),
            max_windows=settings.max_windows,
        )
        self._folds = set(bundles)

    @classmethod
    @contextmanager
    def opened(cls, bundles: Mapping[int, Bundle]) -> Iterator[JudgedPipeline]:
        """Open the networks, and close them at the end of the ``with`` block."""
        pipeline = cls(bundles)
        try:
            yield pipeline
        finally:
            pipeline._pipeline.close()

    @property
    def card(self) -> ModelCard:
        """The contract, which is the same for all networks apart from names and figures."""
        return self._pipeline.model(None).card

    def classify(self, recordings: Sequence[JudgedRecording], *, window_tags: Sequence[str] = ()) -> ClassifiedSet:
        """Classify recordings, each by the network of its fold.

        Args:
            recordings: The recordings.
            window_tags: Tags whose logits are kept for each window, as far as the networks have them.

        Raises:
            DataError: If there is no network for a fold.
            ServiceError: If a recording cannot be decoded.
        """
        if missing := sorted({recording.fold for recording in recordings} - self._folds):
            raise DataError(f"there is no network for the folds {missing}")
        logs, tags, chosen = [], [], []
        columns = [i for i, tag in enumerate(self.tags) if tag in window_tags]
        for i, recording in enumerate(recordings, start=1):
            found = self._pipeline.predict(
                recording.path, model=str(recording.fold), tags=self._detail, max_duration_s=_MAX_DURATION_S
            )
            probabilities = found.windows.probabilities[~found.windows.silent]
            logs.append(np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)))
            if found.tags and found.tags.track is not None and found.tags.windows is not None:
                tags.append(found.tags.track)
                chosen.append(_logits(found.tags.windows[:, columns]))
            else:
                tags.append(np.zeros(len(self.tags)))
                chosen.append(np.zeros((len(probabilities), len(columns))))
            if i % _REPORT_EVERY == 0 or i == len(recordings):
                _log.info("%d of %d recordings classified", i, len(recordings))
        return ClassifiedSet(
            names=tuple(recording.name for recording in recordings),
            groups=tuple(recording.group for recording in recordings),
            folds=np.array([recording.fold for recording in recordings]),
            agreed=np.array([recording.listeners_agree for recording in recordings]),
            n_windows=np.array([len(part) for part in logs]),
            logs=np.concatenate(logs).astype(np.float32),
            tags=np.array(tags, dtype=np.float32).reshape(len(recordings), len(self.tags)),
            window_tags=np.concatenate(chosen).astype(np.float32),
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the tags of the networks."""
        spec = self.card.outputs.tags
        return spec.names if spec else ()

    @property
    def _detail(self) -> Detail | None:
        return Detail.WINDOWS if self.tags else None


def _logits(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    bounded = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(bounded / (1 - bounded)))
