"""What every framework serves: turning a file into windows, and windows into probabilities."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from wholetrack.aggregation.ranking import majority_vote, summed_score
from wholetrack.contracts import Rows, WindowScores, joined_windows, separate_windows
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.features.inputs import InputFeatures
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundles
from wholetrack.inference.session import Session
from wholetrack.settings import DeviceChoice, Settings, available_cpus

CORES = available_cpus()
WORKERS = os.environ.get("PEER_SETUP") == "workers"
MAX_BATCH_TRACKS = 4
_MAX_DURATION_S = 3600.0


class Work:
    """The stages of the service without its scheduler, in one process."""

    def __init__(self) -> None:
        threadpool_limits(limits=1, user_api="blas")
        settings = Settings(device=DeviceChoice.CPU)
        bundle = load_bundles(BUILT_IN_MODELS)[settings.default_model]
        self.card = bundle.card
        self.features = InputFeatures(self.card)
        self.grid = self.features.grid(None)
        self.decoder = FfmpegDecoder(find_ffmpeg())
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1 if WORKERS else CORES
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        network = ort.InferenceSession(bundle.onnx, options, providers=["CPUExecutionProvider"])
        self.session = Session(network, bundle, device=DeviceChoice.CPU, batch_sizes=[settings.cpu_batch])

    def windows(self, recording: bytes | Path) -> NDArray[np.float32]:
        """Decode a recording and return its normalised windows, with all inputs of each in one row, ``[n, values]``.

        Frameworks batch single arrays.
        """
        if isinstance(recording, Path):
            return self._windows(recording)
        with tempfile.NamedTemporaryFile() as file:
            file.write(recording)
            file.flush()
            return self._windows(Path(file.name))

    def _windows(self, path: Path) -> NDArray[np.float32]:
        stream = self.features.stream(self.grid)
        rate = self.card.audio.sample_rate
        with self.decoder.open(path, sample_rate=rate, max_duration_s=_MAX_DURATION_S) as decoding:
            blocks = [self.features.normalised(stream.push(samples)) for samples in decoding.blocks()]
            decoding.summary()
        blocks.append(self.features.normalised(stream.finish()))
        windows = separate_windows(joined_windows(blocks))
        return np.concatenate([array.reshape(len(windows), -1) for array in windows.arrays], axis=1)

    def _inputs(self, windows: NDArray[np.float32]) -> Rows:
        shapes = self.session.window_shapes
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        parts = zip(np.split(windows, ends, axis=1), shapes, strict=True)
        return Rows(tuple(part.reshape(-1, *shape) for part, shape in parts))

    def classify(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities ``[n, n_labels]``, computed in batches of the size that the service uses."""
        size = self.session.max_batch
        parts = [self.session.run(self._inputs(windows[i : i + size])) for i in range(0, len(windows), size)]
        return Rows.joined(parts).arrays[0]

    def classify_together(self, tracks: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the probabilities of several tracks, whose windows share batches."""
        ends = np.cumsum([len(windows) for windows in tracks])[:-1]
        return np.split(self.classify(np.concatenate(tracks)), ends)

    def shares(self, probabilities: NDArray[np.float32]) -> dict[str, dict[str, float]]:
        """Return the share of every genre by summed score and by majority vote."""
        silent = np.zeros(len(probabilities), dtype=np.bool_)
        scores = WindowScores(np.arange(len(probabilities), dtype=np.float64), probabilities, silent)
        rankings = {"summed_score": summed_score, "majority_vote": majority_vote}
        return {
            name: {ranked.genre: ranked.share for ranked in rank(scores, self.card.labels).ranked}
            for name, rank in rankings.items()
        }
