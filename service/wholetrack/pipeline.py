"""The whole way of a track, from a file to its prediction: the only place that knows all stages.

HTTP, the command line and the tests call :meth:`Pipeline.predict`; one call runs in one thread, and the device thread
of the engine classifies the first windows while the rest of the file is still being decoded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack.aggregation.confidence import confidence, in_domain
from wholetrack.aggregation.ranking import majority_vote, summed_score
from wholetrack.aggregation.sections import sections
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import (
    ModelCard,
    StageTimes,
    TrackPrediction,
    TrackWarning,
    WarningCode,
    WindowScores,
)
from wholetrack.decoding.decoder import DecodedAudio, Decoding, FfmpegDecoder
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.features.grid import WindowGrid
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack.features.windows import WindowBlock, WindowCutter
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.engine import Engine
from wholetrack.inference.queue import TrackQueue
from wholetrack.scheduling.fair_queue import Turn, Turns

# For the windows that wait when a track has been decoded, a few hundred at most.
_LAST_ANSWERS_S = 2.0


class ServedModel:
    """A bundle, its features, and the engine that runs it.

    Raises:
        StartupError: if the bundle's features or windows are impossible.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.card: ModelCard = bundle.card
        self.engine = engine
        try:
            self.features = LogMel(bundle.card.features, bundle.card.audio.sample_rate)
            WindowGrid.of(self.card.windows, self.features.grid)
        except ValueError as error:
            raise StartupError(f"the bundle {self.card.name} cannot be served: {error}") from error

    def grid(self, hop_s: float | None) -> WindowGrid:
        """Where the windows of a track lie.

        Raises:
            ServiceError: ``invalid_parameter`` for a hop that the model cannot take.
        """
        try:
            return WindowGrid.of(self.card.windows, self.features.grid, hop_s)
        except ValueError as error:
            raise ServiceError(ErrorKind.INVALID_PARAMETER, f"{error}.") from error


@dataclass(slots=True)
class _Clock:
    """Seconds that the track's own thread spent in each stage."""

    decode: float = 0.0
    features: float = 0.0

    @contextmanager
    def running(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.monotonic() - began)


class Pipeline:
    """Predicts tracks with any of the served models.

    Args:
        decoder: of recordings.
        models: by name.
        default_model: the name of the one that answers who names none.
        tracks_at_once: how many tracks are worked on at a time.
        max_windows: of a recording; where a network states several beliefs for a window, each counts.
    """

    def __init__(
        self,
        decoder: FfmpegDecoder,
        models: dict[str, ServedModel],
        *,
        default_model: str,
        tracks_at_once: int,
        max_windows: int,
    ) -> None:
        self._max_beliefs = max_windows
        self.models = models
        self.default_model = default_model
        self.decoder = decoder
        self.turns = Turns(tracks_at_once)

    def model(self, name: str | None) -> ServedModel:
        """The model called ``name``, or the default.

        Raises:
            ServiceError: ``unknown_model``.
        """
        found = self.models.get(self.default_model if name is None else name)
        if found is None:
            raise ServiceError(
                ErrorKind.UNKNOWN_MODEL, f"Choose one of the models served: {', '.join(sorted(self.models))}."
            )
        return found

    def close(self) -> None:
        """Answer what is under way and end the device threads."""
        for served in self.models.values():
            served.engine.close()
        self.decoder.close()

    def predict(
        self,
        path: Path,
        *,
        model: str | None = None,
        hop_s: float | None = None,
        max_duration_s: float,
        weight: int = 1,
        cancellation: Cancellation | None = None,
    ) -> TrackPrediction:
        """Hear a whole recording and say what genre it is.

        Args:
            path: a file of any accepted format.
            model: name of a served model; None for the default.
            hop_s: distance between window starts, in seconds, from one frame to a window; None for the model's.
            max_duration_s: a longer recording is refused.
            weight: how much of the decoders' and the device's time it gets beside a track of weight 1.
            cancellation: stops the work from another thread.

        Raises:
            ServiceError: of any kind in the table that concerns a recording, its parameters or the device.
        """
        served = self.model(model)
        grid = served.grid(hop_s)
        cancellation = cancellation or Cancellation()
        cancellation.check()
        clock, cut = _Clock(), _Cut(self._max_beliefs // (served.card.onnx.steps or 1))
        with served.engine.open_track(weight=weight) as queue, cancellation.calling(queue.abandon):
            with self.turns.take(cancellation, weight=weight) as turn:
                with (
                    self.decoder.open(
                        path, sample_rate=served.card.audio.sample_rate, max_duration_s=max_duration_s
                    ) as decoding,
                    cancellation.calling(lambda _: decoding.kill()),
                ):
                    for block in self._windows(decoding, served, grid, clock):
                        cancellation.check()
                        cut.add(block)
                        with clock.running("features"):
                            heard = normalise(block.frames[~block.silent], served.card.features.normalisation)
                        queue.put(heard)
                        if not decoding.ended:
                            turn.pass_on(stalled=decoding.stalled)
                    cancellation.check()
                    audio = decoding.summary()
                # Who decodes before this track is answered is in its way; but no device that hangs is in others' way.
                queue.settle(_LAST_ANSWERS_S)
            answers = queue.finish()
        scores = cut.scores(answers, served.card)
        return _prediction(served, grid, audio, scores, _times(clock, queue, turn))

    def windows(
        self, path: Path, *, model: str | None = None, hop_s: float | None = None, max_duration_s: float
    ) -> NDArray[np.float32]:
        """What the network is given to hear of a recording, for those who want to check it.

        Returns:
            The normalised windows of the whole track, silent ones included, ``[n_windows, frames, n_mels]``.

        Raises:
            ServiceError: as :meth:`predict`.
        """
        served = self.model(model)
        grid = served.grid(hop_s)
        rate = served.card.audio.sample_rate
        with self.decoder.open(path, sample_rate=rate, max_duration_s=max_duration_s) as decoding:
            blocks = list(self._windows(decoding, served, grid, _Clock()))
            decoding.summary()
        return np.concatenate([normalise(block.frames, served.card.features.normalisation) for block in blocks])

    def _windows(
        self, decoding: Decoding, served: ServedModel, grid: WindowGrid, clock: _Clock
    ) -> Iterator[WindowBlock]:
        """The track's windows as its decoder yields them."""
        frames = served.features.stream()
        cutter = WindowCutter(grid, n_mels=served.card.features.n_mels, silence=served.features.silence)
        blocks = decoding.blocks()
        while True:
            with clock.running("decode"):
                samples = next(blocks, None)
            if samples is None:
                break
            with clock.running("features"):
                cut = cutter.push(frames.push(samples), n_samples=frames.n_samples)
            yield cut
        if frames.n_samples:
            with clock.running("features"):
                cut = cutter.finish(frames.finish(), n_samples=frames.n_samples)
            yield cut


class _Cut:
    """What is kept of a track's windows while the network hears them: their times and silences."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._n_windows = 0
        self._starts: list[NDArray[np.float64]] = []
        self._silent: list[NDArray[np.bool_]] = []

    def add(self, block: WindowBlock) -> None:
        """Keep those of some more.

        Raises:
            ServiceError: ``audio_too_long`` if these are too many.
        """
        self._n_windows += len(block.start_s)
        if self._n_windows > self._most:
            raise ServiceError(
                ErrorKind.AUDIO_TOO_LONG,
                f"The recording has more than {self._most} windows at this distance; ask for a larger hop_s.",
            )
        self._starts.append(block.start_s)
        self._silent.append(block.silent)

    def scores(self, answers: NDArray[np.float32], card: ModelCard) -> WindowScores:
        """Join the answers for the windows that were heard with the silent ones, which know nothing."""
        silent = np.concatenate(self._silent)
        probabilities = np.full((len(silent), *card.output_shape), 1.0 / len(card.labels), dtype=np.float32)
        if len(answers):
            probabilities[~silent] = answers
        return window_scores(np.concatenate(self._starts), probabilities, silent, card)


def window_scores(
    starts: NDArray[np.float64], answers: NDArray[np.float32], silent: NDArray[np.bool_], card: ModelCard
) -> WindowScores:
    """What a network said of every window, in order of time; of one that states beliefs, of every step.

    Where windows overlap, the steps of the earlier one count: by then it has heard more than one that just begins. A
    window that ends before a whole step more has passed adds none.

    Args:
        starts: of the windows, in seconds, ``[n_windows]``.
        answers: ``[n_windows, *card.output_shape]``.
        silent: windows that carry no vote, ``[n_windows]``.
        card: of the model.
    """
    if card.onnx.steps is None:
        return WindowScores(starts, answers, silent)
    n_steps, step_s = card.onnx.steps, card.step_s
    step_starts = starts[:, None] + np.arange(n_steps) * step_s
    kept = np.zeros(step_starts.shape, dtype=np.bool_)
    heard_until = -np.inf
    for i in range(len(starts)):
        # Half a step of tolerance: windows lie on the grid of frames, not on that of steps.
        kept[i] = step_starts[i] > heard_until - step_s / 2
        if kept[i, -1]:
            heard_until = step_starts[i, -1] + step_s
    return WindowScores(step_starts[kept], answers[kept], silent.repeat(n_steps)[kept.ravel()])


def _prediction(
    served: ServedModel, grid: WindowGrid, audio: DecodedAudio, scores: WindowScores, times: StageTimes
) -> TrackPrediction:
    card = served.card
    summed = summed_score(scores, card.labels)
    return TrackPrediction(
        stream=audio.stream,
        duration_s=audio.duration_s,
        card=card,
        device=served.engine.device,
        precision=served.engine.precision,
        hop_s=float(grid.hop),
        summed_score=summed,
        majority_vote=majority_vote(scores, card.labels),
        confidence=confidence(summed, card.calibration),
        in_domain=in_domain(scores, card.domain),
        sections=sections(scores, card.labels, window_s=card.step_s, duration_s=audio.duration_s),
        windows=scores,
        warnings=(*audio.warnings, *_remarks(card, scores, audio.duration_s)),
        times=times,
    )


def _remarks(card: ModelCard, scores: WindowScores, duration_s: float) -> Iterator[TrackWarning]:
    if duration_s < card.windows.window_s:
        yield TrackWarning(
            WarningCode.PADDED,
            f"The recording lasts {duration_s:.2f} s, less than a window of {card.windows.window_s:g} s: it was "
            "repeated to fill one.",
        )
    n_silent = int(scores.silent.sum())
    if n_silent == len(scores.silent):
        yield TrackWarning(WarningCode.SILENT_TRACK, "The recording is silent throughout: there is no genre to name.")
    elif n_silent:
        yield TrackWarning(
            WarningCode.SILENT_WINDOWS, f"{n_silent} of {len(scores.silent)} windows are silent and carry no vote."
        )


def _times(clock: _Clock, queue: TrackQueue, turn: Turn) -> StageTimes:
    return StageTimes(
        decode=clock.decode * 1e3,
        features=clock.features * 1e3,
        queue=(turn.waited_s + queue.queue_s) * 1e3,
        inference=queue.inference_s * 1e3,
    )
