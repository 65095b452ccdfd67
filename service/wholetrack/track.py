"""One track on its way through the stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wholetrack.aggregation.window_scores import WindowLog
from wholetrack.cancellation import Cancellation
from wholetrack.decoding.decoder import Decoding
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.decoding.live_pcm import LiveDecoding, LivePcm
from wholetrack.decoding.plan import DecodingPlan
from wholetrack.extraction.client import RemoteWindows
from wholetrack.extraction.windows import ExtractedWindows, WindowExtractor
from wholetrack.features.grid import WindowGrid
from wholetrack.observer import Observer
from wholetrack.served_model import ServedModel


@dataclass(slots=True)
class StageTimer:
    """Seconds that the thread of a track spent in each stage, or waited for it."""

    decode: float = 0.0
    features: float = 0.0
    inference: float = 0.0

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.monotonic() - began)


class Track:
    """The state of one track in the pipeline."""

    def __init__(
        self,
        source: Path | LivePcm,
        served: ServedModel,
        grid: WindowGrid,
        max_duration_s: float,
        cancellation: Cancellation,
        plan: DecodingPlan,
        observer: Observer,
    ) -> None:
        self.source = source
        self.served = served
        self.grid = grid
        self.max_duration_s = max_duration_s
        self.cancellation = cancellation
        self.plan = plan
        self.observer = observer
        self.timer = StageTimer()
        self.windows = WindowLog()

    @property
    def decoder_memory(self) -> DecoderMemory | None:
        """Size of the decoder that the track needs; None for live audio, which needs none."""
        return None if isinstance(self.source, LivePcm) else self.plan.memory

    def live_blocks(self, decoding: LiveDecoding) -> Iterator[ExtractedWindows]:
        """Yield the windows of live audio, which are computed here so that each is returned at once."""
        extractor = WindowExtractor(
            self.served.features, self.grid, peaks_per_s=self.observer.peaks_per_s, keep_silent=False, prompt=True
        )
        samples = decoding.blocks()
        while True:
            with self.timer.measure("decode"):
                block = next(samples, None)
            with self.timer.measure("features"):
                windows = extractor.push(
                    np.zeros(0, dtype=np.float32) if block is None else block, is_last=block is None
                )
            if block is not None:
                self.observer.decoded(len(block), windows.peaks)
            yield windows
            if block is None:
                return

    def blocks(
        self, decoding: Decoding[ExtractedWindows] | LiveDecoding, windows: RemoteWindows | None
    ) -> Iterator[ExtractedWindows]:
        """Yield the windows of the track as it is decoded."""
        if isinstance(decoding, LiveDecoding):
            yield from self.live_blocks(decoding)
            return
        assert windows is not None
        blocks = decoding.blocks()
        while True:
            began, n_before = time.monotonic(), decoding.n_samples
            windows.features_s = 0.0
            block = next(blocks, None)
            self.timer.features += windows.features_s
            self.timer.decode += time.monotonic() - began - windows.features_s
            if block is None:
                return
            self.observer.decoded(decoding.n_samples - n_before, block.peaks)
            yield block
