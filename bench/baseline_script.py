"""Classification the way the code of the published systems does it, as a baseline.

librosa decodes the recording and computes every window separately, and the network is called once per track. The
authors run such code as a script that processes one recording after another, with as many threads as the libraries
choose. As a harder comparison, it can also run in as many processes as there are cores, with one thread each.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import librosa
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.clients import Predict
from wholetrack.contracts import ModelCard, RelativeToMax
from wholetrack.inference.bundle import MODEL_FILE, Bundle, load_bundle


def predict(song: Path, bundle_folder: Path, threads: int) -> str:
    """Return the genre of a recording by the summed score of a bundle's network."""
    session, bundle = _network(bundle_folder, threads)
    card = bundle.card
    samples, _ = librosa.load(song, sr=card.audio.sample_rate)
    logits = session.run(None, {card.single_input.name: _windows(samples, card)})[0]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return card.labels[int(probabilities.sum(axis=0).argmax())]


@contextmanager
def baseline_script(song: Path, bundle_folder: Path, *, processes: int, threads: int) -> Iterator[Predict]:
    """Yield a function that classifies the song in one of a number of warmed-up processes.

    Args:
        song: The recording.
        bundle_folder: Folder of the bundle whose network is used.
        processes: Number of processes.
        threads: Number of threads in each process.
    """
    with ProcessPoolExecutor(processes, initializer=threadpool_limits, initargs=(threads,)) as pool:
        for done in [pool.submit(predict, song, bundle_folder, threads) for _ in range(processes)]:
            done.result()
        yield lambda: pool.submit(predict, song, bundle_folder, threads).result()


@cache
def _network(folder: Path, threads: int) -> tuple[ort.InferenceSession, Bundle]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])
    return session, load_bundle(folder)


def _windows(samples: NDArray[np.float32], card: ModelCard) -> NDArray[np.float32]:
    """Return the normalised windows ``[n, frames, n_mels]``."""
    entry, rate = card.single_input, card.audio.sample_rate
    spec = entry.features
    normalisation = spec.normalisation
    assert isinstance(normalisation, RelativeToMax)
    length, hop = round(card.windows.window_s * rate), round(card.windows.hop_s * rate)
    windows = []
    for start in range(0, len(samples) - length + 1, hop):
        mel = librosa.feature.melspectrogram(
            y=samples[start : start + length],
            sr=rate,
            n_fft=spec.n_fft,
            hop_length=length // entry.frames,
            n_mels=spec.n_mels,
            fmin=spec.fmin,
            fmax=spec.fmax,
        )
        decibels = librosa.power_to_db(mel, ref=np.max, top_db=normalisation.range_db)
        windows.append(decibels.T[: entry.frames] / normalisation.range_db + 1)
    return np.stack(windows).astype(np.float32)
