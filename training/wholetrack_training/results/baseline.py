"""The baseline: a support vector machine on timbre statistics, as reported by Campana et al."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.special import softmax
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from wholetrack.contracts import FeatureSpec
from wholetrack.features.mel import mel_edges
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.data.windows import window_at, window_starts
from wholetrack_training.errors import DataError
from wholetrack_training.fitting.evaluation import evaluate_scores
from wholetrack_training.fitting.runs import RunSpec
from wholetrack_training.results.records import BASELINE, Record, Training, today
from wholetrack_training.systems.recipe import Recipe

_N_MFCC = 20
_ROLLOFF = 0.85
_PENALTIES = (1.0, 10.0, 100.0)


def timbre(windows: NDArray[np.float32], features: FeatureSpec) -> NDArray[np.float64]:
    """Compute statistics of timbral texture (Tzanetakis and Cook 2002) from mel bands instead of the spectrum.

    Each frame has cepstral coefficients, centroid, spread, rolloff, flatness and flux. The statistics of each are its
    mean and standard deviation over the window, and the standard deviation of its change from frame to frame.

    Args:
        windows: Log-mel values in dB, ``[n_windows, n_frames, n_mels]``.
        features: Positions of the mel bands.

    Returns:
        ``[n_windows, 75]``.
    """
    centres = mel_edges(n_mels=features.n_mels, fmin=features.fmin, fmax=features.fmax, scale=features.mel_scale)[1:-1]
    power = 10.0 ** (windows.astype(np.float64) / 10.0)
    share = power / power.sum(axis=2, keepdims=True)
    centroid = (share * centres).sum(axis=2)
    spread = np.sqrt((share * (centres - centroid[..., None]) ** 2).sum(axis=2))
    rolloff = centres[(share.cumsum(axis=2) >= _ROLLOFF).argmax(axis=2)]
    flatness = windows.mean(axis=2) - 10.0 * np.log10(power.mean(axis=2))
    flux = np.square(np.diff(share, axis=1, prepend=share[:, :1])).sum(axis=2)
    cepstrum = dct(windows, axis=2, norm="ortho")[..., 1 : _N_MFCC + 1]
    frames = np.concatenate((cepstrum, np.stack((centroid, spread, rolloff, flatness, flux), axis=2)), axis=2)
    parts = (frames.mean(axis=1), frames.std(axis=1), np.diff(frames, axis=1).std(axis=1))
    return np.concatenate(parts, axis=1)


def fit_baseline(tracks: TrackSet, spec: RunSpec, recipe: Recipe) -> Record:
    """Train the baseline, with its penalty chosen on the validation tracks, and evaluate it on the test tracks.

    Args:
        tracks: The whole set.
        spec: How the tracks are split.
        recipe: Recipe of a system with the same features and windows.

    Raises:
        DataError: If a side of the split is empty.
    """
    for side, names in asdict(spec.split).items():
        if not names:
            raise DataError(f"there are too few tracks: none are left for {side}")
    began = time.monotonic()
    sides = {side: tracks.named(names) for side, names in asdict(spec.split).items()}
    described = {side: [_described(track.frames, recipe) for track in own.tracks] for side, own in sides.items()}
    truth = {side: [track.genre for track in own.tracks] for side, own in sides.items()}
    machines = [_fitted(penalty, described["train"], truth["train"]) for penalty in _PENALTIES]
    best = max(machines, key=lambda machine: _accuracy(machine, described["validation"], truth["validation"]))
    figures = evaluate_scores([_scores(best, rows) for rows in described["test"]], truth["test"], tracks.labels)
    vectors = best[-1].support_vectors_
    minutes = round((time.monotonic() - began) / 60, 1)
    return Record(
        date=today(),
        data=spec.data,
        protocol=spec.protocol,
        part=spec.part,
        seed=spec.seed,
        labels=tracks.labels,
        tracks={side: len(own) for side, own in sides.items()},
        system=BASELINE,
        recipe={"windows": recipe.windows.model_dump(mode="json"), "penalty": best[-1].C},
        parameters=vectors.size,
        # Per window: the distance to every support vector, and the sum over them for every pair of genres.
        mflop_per_window=round((3 * vectors.size + 2 * best[-1].dual_coef_.size) / 1e6, 1),
        figures=figures,
        training=Training(epochs=0, best_epoch=0, minutes=minutes, history={}),
    )


def _described(frames: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float64]:
    """Return the statistics of all windows of a track, ``[n_windows, 75]``."""
    starts = window_starts(len(frames), recipe.features, recipe.windows, recipe.audio)
    return timbre(np.stack([window_at(frames, start, recipe.windows.frames) for start in starts]), recipe.features)


def _fitted(penalty: float, described: Sequence[NDArray[np.float64]], truth: Sequence[int]) -> Pipeline:
    machine = make_pipeline(StandardScaler(), SVC(C=penalty))
    return machine.fit(np.concatenate(described), np.repeat(truth, [len(rows) for rows in described]))


def _scores(machine: Pipeline, described: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the softmax of the decision values in place of probabilities, ``[n_windows, n_labels]``."""
    decisions = machine.decision_function(described)
    if decisions.ndim == 1:
        # For two genres there is a single decision value.
        decisions = np.stack((-decisions, decisions), axis=1)
    scores: NDArray[np.float32] = softmax(decisions, axis=1).astype(np.float32)
    return scores


def _accuracy(machine: Pipeline, described: Sequence[NDArray[np.float64]], truth: Sequence[int]) -> float:
    return float(machine.score(np.concatenate(described), np.repeat(truth, [len(rows) for rows in described])))
