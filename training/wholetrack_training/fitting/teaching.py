"""Asks the taggers about every recording of a data set, once, and stores what they say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.errors import ServiceError
from wholetrack_training.data.teaching_store import Targets, TeachingStore
from wholetrack_training.systems.taggers.tagger import Tagger

_log = logging.getLogger(__name__)

# The highest sample rate of the taggers. Lower rates are resampled from it, so that a file is decoded once.
_DECODED_RATE = 32000
_WINDOW_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachingPlan:
    """What to ask.

    Attributes:
        sample_rate: Sample rate in Hz of the samples to keep.
        hop_s: Distance between windows in seconds.
        max_s: Only this much of each recording is used, from its middle.
        every: Ask a tagger about every n-th window only, by name; 1 for those not named. A recording of one window is
            always asked about.
    """

    sample_rate: int
    hop_s: float = 3.0
    max_s: float = 150.0
    every: Mapping[str, int]


def teach_recordings(
    files: Sequence[tuple[str, Path]],
    taggers: Sequence[Tagger],
    store: TeachingStore,
    plan: TeachingPlan,
    decoder: FfmpegDecoder,
) -> None:
    """Decode the recordings that are not in the store yet, and ask the taggers about them.

    Recordings that cannot be decoded, or are shorter than a window, are logged and left out. An interrupted call can be
    repeated.

    Args:
        files: Name and path of each recording.
        taggers: The networks that teach.
        store: Where to keep samples and targets.
        plan: What to ask.
        decoder: Decodes the recordings.
    """
    missing = [(name, path) for name, path in files if name not in store]
    for done, (name, path) in enumerate(missing, start=1):
        try:
            decoded = _decode(path, decoder)
        except (ServiceError, OSError) as error:
            _log.warning("Left out %s: %s", name, error)
            continue
        if len(decoded) < _WINDOW_S * _DECODED_RATE:
            # The taggers would repeat it to fill a window, and the student would not.
            _log.warning("Left out %s: it is shorter than a window", name)
            continue
        _teach(name, _middle(decoded, plan.max_s), taggers, store, plan)
        _log.info("%d/%d %s", done, len(missing), name)


def _teach(
    name: str, samples: NDArray[np.float32], taggers: Sequence[Tagger], store: TeachingStore, plan: TeachingPlan
) -> None:
    length_s = len(samples) / _DECODED_RATE
    n_windows = int((length_s - _WINDOW_S) // plan.hop_s) + 1
    start_s = np.arange(n_windows, dtype=np.float64) * plan.hop_s
    targets = {}
    for tagger in taggers:
        windows = np.arange(len(start_s))[:: plan.every.get(tagger.name, 1)]
        at_its_rate = soxr.resample(samples, _DECODED_RATE, tagger.sample_rate)
        found = tagger.outputs(at_its_rate, (start_s[windows] + _WINDOW_S / 2).tolist())
        targets[tagger.name] = Targets(windows, found.logits, found.embedding)
    store.add(name, soxr.resample(samples, _DECODED_RATE, plan.sample_rate), start_s, targets)


def _decode(path: Path, decoder: FfmpegDecoder) -> NDArray[np.float32]:
    with decoder.open(path, sample_rate=_DECODED_RATE, max_duration_s=4 * 3600.0) as decoding:
        samples = np.concatenate(list(decoding.blocks()))
        decoding.summary()
    return samples


def _middle(samples: NDArray[np.float32], max_s: float) -> NDArray[np.float32]:
    excess = len(samples) - round(max_s * _DECODED_RATE)
    return samples if excess <= 0 else samples[excess // 2 : excess // 2 + round(max_s * _DECODED_RATE)]
