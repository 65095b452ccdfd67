"""The pipeline that decodes recordings on this machine, in a sandbox."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wholetrack.cancellation import Cancellation
from wholetrack.contracts import Rows, separate_windows
from wholetrack.decoding.decoder import Decoding, FfmpegDecoder
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.decoding.plan import THOROUGH
from wholetrack.extraction.client import RemoteWindows
from wholetrack.extraction.windows import ExtractedWindows
from wholetrack.extraction.workers import FeatureWorkers, WorkerCounts
from wholetrack.observer import Observer
from wholetrack.served_model import ServedModel
from wholetrack.track import Track
from wholetrack.track_pipeline import TrackPipeline


class Pipeline(TrackPipeline):
    """Predicts tracks whose recordings are decoded on this machine.

    Args:
        decoder: Opens recordings.
        workers: Compute windows from what the decoder writes.
        models: As for :class:`TrackPipeline`, which documents the other arguments as well.
        default_model: Key of the default model.
        tracks_at_once: Number of tracks that are decoded at the same time.
        tracks_open: Number of tracks that may have started and not finished, for each size of decoder.
        max_windows: Limit per recording.
    """

    def __init__(
        self,
        decoder: FfmpegDecoder,
        workers: FeatureWorkers,
        models: dict[str, ServedModel],
        *,
        default_model: str,
        tracks_at_once: int,
        tracks_open: Mapping[DecoderMemory, int],
        max_windows: int,
    ) -> None:
        super().__init__(
            models,
            default_model=default_model,
            tracks_at_once=tracks_at_once,
            tracks_open=tracks_open,
            max_windows=max_windows,
        )
        self.decoder = decoder
        self.workers = workers

    @property
    def sandbox_layers(self) -> frozenset[str]:
        """Active layers of the sandbox for decoders."""
        return frozenset(self.decoder.sandbox.layers)

    def worker_counts(self) -> WorkerCounts:
        """Return how the feature workers are."""
        return self.workers.counts()

    def close(self) -> None:
        """Finish the tracks in progress, then stop the engines, the decoder and the feature workers."""
        super().close()
        self.decoder.close()
        self.workers.close()

    def owns(self, pid: int) -> bool:
        """Return whether this process will collect the exit status of a child; see :meth:`Sandbox.owns`."""
        return self.decoder.sandbox.owns(pid) or self.workers.owns(pid)

    def normalised_windows(
        self, path: Path, *, model: str | None = None, hop_s: float | None = None, max_duration_s: float
    ) -> Rows:
        """Return the input of the network for a recording, for verification.

        Returns:
            The normalised windows of the whole track, silent ones included, ``[n_windows, frames, n_mels]`` for each
            input.

        Raises:
            ServiceError: As for :meth:`predict`.
        """
        served = self.model(model)
        track = Track(path, served, served.grid(hop_s), max_duration_s, Cancellation(), THOROUGH, Observer())
        with self._open_recording(track, keep_silent=True) as (decoding, windows):
            rows = [separate_windows(block.rows) for block in track.blocks(decoding, windows)]
            decoding.summary()
        return Rows.joined(rows)

    @contextmanager
    def _open_recording(
        self, track: Track, *, keep_silent: bool = False
    ) -> Generator[tuple[Decoding[ExtractedWindows], RemoteWindows]]:
        """Start decoding a file, and stop at the end of the ``with`` block."""
        assert isinstance(track.source, Path)
        served = track.served
        with (
            self.workers.open_track(
                served.card,
                served.features,
                hop_s=float(track.grid.hop),
                peaks_per_s=track.observer.peaks_per_s,
                keep_silent=keep_silent,
            ) as windows,
            self.decoder.open_with(
                windows,
                track.source,
                sample_rate=served.card.audio.sample_rate,
                max_duration_s=track.max_duration_s,
                plan=track.plan,
            ) as decoding,
        ):
            yield decoding, windows
