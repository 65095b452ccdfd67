"""A feature worker: a process that turns the output of many ffmpeg processes into windows.

It is a function of the sandbox, in a process with a single thread and one loop for all of its tracks.
:mod:`wholetrack.extraction.messages` describes what it receives and sends.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import FeatureContract, Strip
from wholetrack.decoding.pipes import BLOCK_TIMEOUT_S, SILENCE_TIMEOUT_S
from wholetrack.decoding.samples import BLOCK_SAMPLES, SampleStream
from wholetrack.extraction.messages import (
    MAX_MESSAGE_BYTES,
    MAX_SPEC_BYTES,
    NEXT,
    Block,
    Part,
    TrackSpec,
    error_message,
    write_arrays,
)
from wholetrack.extraction.sealed_memory import MessageError
from wholetrack.extraction.windows import WindowExtractor
from wholetrack.features.inputs import InputFeatures

WORKER_NAME = "feature-worker"
"""The process name of a worker, as ``ps`` and ``/proc/PID/comm`` show it."""

_PR_SET_NAME = 15
_MAX_CONTRACTS = 32

# Loaded before the fork, because a worker can open no file.
_libc = ctypes.CDLL(None)


def serve(control: int) -> None:
    """Compute windows until the service closes the socket with the descriptor ``control``."""
    _libc.prctl(_PR_SET_NAME, WORKER_NAME.encode())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, control) as connection:
        _Loop(connection).run()


def prepare() -> None:
    """Load and initialise what a worker needs later, by computing the windows of a second of noise."""
    log_mel = {"n_fft": 512, "hop_length": 256, "n_mels": 4, "fmin": 0, "fmax": 4000}
    features = log_mel | {"floor": 1e-9, "normalisation": {"kind": "min_max", "range_db": 60, "low": 0, "high": 1}}
    entry = {"name": "x", "shape": ["n", 8, 4], "frames": 8, "features": features}
    windows = {"window_s": 0.3, "hop_s": 0.1, "last_window": "align_to_end"}
    contract = FeatureContract.model_validate({"audio": {"sample_rate": 8000}, "windows": windows, "inputs": [entry]})
    stream = SampleStream(rate=16_000, sample_rate=8000)
    noise = np.random.default_rng(0).normal(size=2 * 16_000).astype("<f4").tobytes()
    stream.free[: len(noise)] = noise
    stream.received(len(noise))
    inputs = InputFeatures(contract)
    extractor = WindowExtractor(inputs, inputs.grid(None), peaks_per_s=10, keep_silent=False)
    os.close(write_arrays(extractor.push(stream.take(ended=True), is_last=True)))


class _Track:
    """A track of the worker.

    Attributes:
        connection: Its socket.
        pcm: Descriptor of the output of its ffmpeg; None before the first part and after the end of each part.
        wanted: Whether a block was requested.
    """

    def __init__(self, connection: socket.socket, spec: TrackSpec) -> None:
        self.connection = connection
        self.pcm: int | None = None
        self.wanted = False
        features = _features(spec.contract)
        grid = features.grid(spec.hop_s)
        self._sample_rate = grid.frames.sample_rate
        self._extractor = WindowExtractor(features, grid, peaks_per_s=spec.peaks_per_s, keep_silent=spec.keep_silent)
        self._taken: list[NDArray[np.float32]] = []
        self._is_last = self._ended = False
        self._silent_at = self._full_at = 0.0

    @property
    def due_at(self) -> float:
        """When to reply with an incomplete block, in monotonic time."""
        return min(self._silent_at, self._full_at)

    def begin(self, part: Part, pcm: int) -> None:
        """Begin with the output of another ffmpeg process."""
        self.pcm, self._is_last, self._ended = pcm, part.is_last, False
        self._stream = SampleStream(rate=part.rate, sample_rate=self._sample_rate)

    def request(self) -> int:
        """Note that a block was requested, and return the descriptor from which to read it.

        Raises:
            MessageError: If there is nothing to read.
        """
        if self.pcm is None:
            raise MessageError("a block was requested before a part")
        self.wanted = True
        self._restart_clocks()
        return self.pcm

    def read(self) -> bool:
        """Read what ffmpeg has written, and return whether the block is complete."""
        assert self.pcm is not None
        n_bytes = os.readv(self.pcm, [self._stream.free])
        self._stream.received(n_bytes)
        self._silent_at = time.monotonic() + SILENCE_TIMEOUT_S
        self._ended = not n_bytes
        if not (self._ended or self._stream.is_full):
            return False
        self._taken.append(self._stream.take(ended=self._ended))
        self._restart_clocks()
        return self._ended or sum(map(len, self._taken)) >= BLOCK_SAMPLES

    def reply(self, *, stalled: bool) -> None:
        """Send the requested block.

        Args:
            stalled: Whether it is sent because ffmpeg wrote nothing, or too slowly.
        """
        self.wanted = False
        if stalled:
            self._taken.append(self._stream.take(ended=False))
        samples, self._taken = np.concatenate(self._taken), []
        began = time.monotonic()
        windows = self._extractor.push(samples, is_last=self._ended and self._is_last)
        block = Block(
            n_samples=len(samples),
            n_windows=len(windows.start_s),
            n_rows=len(windows.rows),
            n_frames=len(windows.rows.frames) if isinstance(windows.rows, Strip) else 0,
            n_peaks=len(windows.peaks),
            peak=self._stream.peak,
            cancelled_s=self._stream.cancelled_s,
            features_s=time.monotonic() - began,
            has_replaced=self._stream.has_replaced,
            stalled=stalled,
            ended=self._ended,
        )
        memory = [write_arrays(windows)] if block.has_arrays else []
        try:
            socket.send_fds(self.connection, [block.encode()], memory)
        finally:
            for descriptor in memory:
                os.close(descriptor)

    def finish_part(self) -> None:
        """Close the output of ffmpeg, if the part has ended."""
        if self._ended and self.pcm is not None:
            os.close(self.pcm)
            self.pcm = None

    def close(self) -> None:
        """Close the descriptors."""
        self._ended = True
        self.finish_part()
        self.connection.close()

    def _restart_clocks(self) -> None:
        now = time.monotonic()
        self._silent_at, self._full_at = now + SILENCE_TIMEOUT_S, now + BLOCK_TIMEOUT_S


class _Loop:
    """Serves all tracks of a worker.

    Args:
        control: The worker's socket.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        # Not epoll, which would need more system calls.
        self._selector = selectors.PollSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._tracks = set[_Track]()

    def run(self) -> None:
        """Serve until the service closes the worker's socket."""
        while True:
            wanted = [track.due_at for track in self._tracks if track.wanted]
            timeout_s = max(0.0, min(wanted) - time.monotonic()) if wanted else None
            for key, _ in self._selector.select(timeout_s):
                if key.fileobj is not self._control:
                    handle, track = key.data
                    self._handle(handle, track)
                elif not self._receive_track():
                    return
            now = time.monotonic()
            for track in [track for track in self._tracks if track.wanted and track.due_at <= now]:
                self._handle(self._reply_incomplete, track)

    def _handle(self, handle: Callable[[_Track], None], track: _Track) -> None:
        """Handle an event of a track. If that fails, only this track fails."""
        if track not in self._tracks:
            # An earlier event of the same call ended it.
            return
        try:
            handle(track)
        except ConnectionError:
            self._forget(track)
        except Exception:  # noqa: BLE001 - whatever is wrong with one track must not affect the others
            with suppress(OSError):
                track.connection.send(error_message(traceback.format_exc()))
            self._forget(track)

    def _receive_track(self) -> bool:
        """Open the track that the service has sent; return whether there was one."""
        message, descriptors, *_ = socket.recv_fds(self._control, MAX_SPEC_BYTES, 1)
        if not message:
            return False
        # The kernel drops descriptors that exceed RLIMIT_NOFILE. The service then reads an end of file.
        for descriptor in descriptors:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptor)
            try:
                track = _Track(connection, TrackSpec.decode(message))
            except Exception:  # noqa: BLE001 - as above
                with suppress(OSError), connection:
                    connection.send(error_message(traceback.format_exc()))
                continue
            self._tracks.add(track)
            self._selector.register(connection, selectors.EVENT_READ, (self._receive, track))
        return True

    def _receive(self, track: _Track) -> None:
        """Receive a message about a track."""
        message, descriptors, *_ = socket.recv_fds(track.connection, MAX_MESSAGE_BYTES, 1)
        if message == NEXT:
            self._selector.register(track.request(), selectors.EVENT_READ, (self._read, track))
        elif descriptors:
            (pcm,) = descriptors
            track.begin(Part.decode(message), pcm)
        elif message:
            raise MessageError("a message has no descriptor: there are too many open files")
        else:
            self._forget(track)

    def _read(self, track: _Track) -> None:
        if track.read():
            self._reply(track, stalled=False)

    def _reply_incomplete(self, track: _Track) -> None:
        self._reply(track, stalled=True)

    def _reply(self, track: _Track, *, stalled: bool) -> None:
        assert track.pcm is not None
        self._selector.unregister(track.pcm)
        track.reply(stalled=stalled)
        track.finish_part()

    def _forget(self, track: _Track) -> None:
        self._tracks.discard(track)
        for descriptor in (track.pcm, track.connection):
            with suppress(KeyError, ValueError):
                if descriptor is not None:
                    self._selector.unregister(descriptor)
        track.close()


@lru_cache(maxsize=_MAX_CONTRACTS)
def _features(contract: str) -> InputFeatures:
    """Return the features of a model. They are computed once, and shared by its tracks."""
    return InputFeatures(FeatureContract.model_validate_json(contract))
