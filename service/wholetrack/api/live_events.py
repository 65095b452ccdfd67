"""The events of a live prediction: threads that work on the track report them, and the response sends them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from wholetrack.aggregation.live_scores import LiveScores
from wholetrack.aggregation.taxonomy import folded
from wholetrack.api.responses import window_fields
from wholetrack.api.schemas import WindowDetail
from wholetrack.contracts import ModelCard, Rows, TaxonomySpec
from wholetrack.observer import Observer

PEAKS_PER_S = 10
"""Number of peaks per second of audio in ``progress`` events."""

_PEAK_DECIMALS = 3
# Proxies close connections that are silent for 30 s to 60 s.
_HEARTBEAT_S = 10.0
_MIN_INTERVAL_S = 0.05

Encoded = TypeVar("Encoded")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, and its data for JSON."""

    name: str
    data: dict[str, Any]

    @property
    def json(self) -> str:
        """The data as JSON."""
        return json.dumps(self.data, separators=(",", ":"))


class LiveEvents(Observer):
    """Collects what happens to a track until it is sent.

    The threads of the track and of the engine only append to a queue, without a lock, because the engine must not wait
    for a response. :meth:`take` processes the queue. A client that reads slowly gets fewer and larger events. Until
    then, the scores of the windows are kept, whatever ``detail`` is, and the peaks of the waveform. The engine keeps
    the same scores until the track ends, so only the peaks take additional memory: ten numbers per second of audio.

    Args:
        detail: How much the events say about each window.
        start_at_once: Whether the first event does not wait for the first audio.

    Attributes:
        uploaded: Set on the event loop once the recording has been received.
    """

    peaks_per_s = PEAKS_PER_S

    def __init__(self, detail: WindowDetail, *, start_at_once: bool = False) -> None:
        self.uploaded = asyncio.Event()
        self._detail = detail
        self._start_at_once = start_at_once
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._queue: deque[Callable[[], None]] = deque()
        # Used by take only.
        self._attempt: _Attempt | None = None

    # The threads of the track and of the engine call the following methods, those of an observer.

    def started(self, card: ModelCard, hop_s: float, taxonomy: TaxonomySpec | None) -> None:
        """Add the beginning of an attempt to decode the track."""
        self._queue.append(partial(self._begin, card, hop_s, taxonomy))
        if self._start_at_once:
            self._loop.call_soon_threadsafe(self._changed.set)

    def decoded(self, n_samples: int, peaks: NDArray[np.float32]) -> None:
        """Add the peaks of the waveform."""
        if n_samples:
            self._append(partial(self._add_peaks, n_samples, peaks))

    def cut(self, start_s: NDArray[np.float64], silent: NDArray[np.bool_]) -> None:
        """Add the times of windows. They are sent once they have been classified."""
        # Unlike audio and scores, these do not wake the response, which must not begin before there is audio.
        self._queue.append(partial(self._add_windows, start_s, silent))

    def classified(self, position: int, outputs: Rows) -> None:
        """Add the scores of windows."""
        self._append(partial(self._add_outputs, position, outputs.arrays[0]))

    def _append(self, change: Callable[[], None]) -> None:
        self._queue.append(change)
        self._loop.call_soon_threadsafe(self._changed.set)

    # The response calls the following methods.

    def wake(self) -> None:
        """Make :meth:`wait` return. Call this on the event loop only."""
        self._changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until something has changed; return whether it has."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    async def batches(
        self, prediction: asyncio.Future[Any], encode: Callable[[list[Event]], Encoded]
    ) -> AsyncIterator[Encoded | None]:
        """Yield the events until a prediction is done, encoded in a thread; None for a heartbeat."""
        while True:
            has_changed = await self.wait(_HEARTBEAT_S)
            is_last = prediction.done()
            events = await to_thread.run_sync(lambda: encode(found) if (found := self.take()) else None)
            if events is not None or not has_changed:
                yield events
            if is_last:
                return
            # Without this pause, each batch would become an event.
            await asyncio.wait([prediction], timeout=_MIN_INTERVAL_S)

    def take(self) -> list[Event]:
        """Return what has happened since the last call, in as few events as possible.

        Only one thread at a time may call this.
        """
        while self._queue:
            self._queue.popleft()()
        return self._attempt.take(self._detail) if self._attempt else []

    def _begin(self, card: ModelCard, hop_s: float, taxonomy: TaxonomySpec | None) -> None:
        # Drop what has not been sent of an earlier attempt.
        is_first = self._attempt is None or not self._attempt.is_announced
        self._attempt = _Attempt(card, hop_s, taxonomy, is_first=is_first)

    def _add_peaks(self, n_samples: int, peaks: NDArray[np.float32]) -> None:
        assert self._attempt
        self._attempt.n_samples += n_samples
        self._attempt.peaks += np.minimum(peaks, 1.0).astype("f8").round(_PEAK_DECIMALS).tolist()

    def _add_windows(self, start_s: NDArray[np.float64], silent: NDArray[np.bool_]) -> None:
        assert self._attempt
        self._attempt.scores.add_windows(start_s, silent)

    def _add_outputs(self, position: int, outputs: NDArray[np.float32]) -> None:
        assert self._attempt
        self._attempt.scores.add_outputs(position, outputs)


class _Attempt:
    """What has happened in one attempt to decode the track and has not been sent."""

    def __init__(self, card: ModelCard, hop_s: float, taxonomy: TaxonomySpec | None, *, is_first: bool) -> None:
        self.n_samples = 0
        self.peaks: list[float] = []
        self.scores = LiveScores(card)
        self.is_announced = False
        self._card = card
        self._hop_s = hop_s
        self._taxonomy = taxonomy
        self._labels = card.labels if taxonomy is None else tuple(taxonomy.genres)
        self._is_first = is_first
        self._n_sent = 0

    def take(self, detail: WindowDetail) -> list[Event]:
        events = []
        if not self.is_announced:
            self.is_announced = True
            events.append(Event("start" if self._is_first else "restart", self._description()))
        scores = self.scores.take()
        if self._taxonomy:
            scores = folded(scores, self._card.labels, self._taxonomy)
        first, self._n_sent = self._n_sent, self._n_sent + len(scores.start_s)
        if self.peaks:
            decoded_s = round(self.n_samples / self._card.audio.sample_rate, 3)
            events.append(Event("progress", {"decoded_s": decoded_s, "windows": self._n_sent, "peaks": self.peaks}))
            self.peaks = []
        if len(scores.start_s) and detail is not WindowDetail.NONE:
            events.append(Event("windows", {"first": first} | window_fields(scores, self._labels, detail)))
        return events

    def _description(self) -> dict[str, Any]:
        card = self._card
        return {
            "model": {
                "name": card.name,
                "version": card.version,
                "window_s": card.windows.window_s,
                "hop_s": self._hop_s,
                "step_s": None if card.outputs.scores.steps is None else card.step_s,
                "labels": self._labels,
            },
            "peaks_per_s": PEAKS_PER_S,
        }
