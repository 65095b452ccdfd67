"""The way of the published systems: librosa decodes and computes every window by itself, one prediction per track.

Their authors run it as a script, one recording after the other, whose libraries use the cores as they see fit. Beside
that, for a harder comparison than they ever meant to be: as many processes as cores, a thread each.
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
from threadpoolctl import threadpool_limits

from bench.clients import Ask
from wholetrack.contracts import RelativeToMax
from wholetrack.inference.bundle import MODEL_FILE, Bundle, load_bundle


@cache
def _network(folder: Path, threads: int) -> tuple[ort.InferenceSession, Bundle]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])
    return session, load_bundle(folder)


def predict(song: Path, bundle_folder: Path, threads: int) -> str:
    """The genre of a recording by the bundle's network, everything else as the seeds' authors do it."""
    session, bundle = _network(bundle_folder, threads)
    card = bundle.card
    spec, rate = card.features, card.audio.sample_rate
    normalisation = spec.normalisation
    assert isinstance(normalisation, RelativeToMax)
    samples, _ = librosa.load(song, sr=rate)
    length, hop = round(card.windows.window_s * rate), round(card.windows.hop_s * rate)
    windows = []
    for start in range(0, len(samples) - length + 1, hop):
        mel = librosa.feature.melspectrogram(
            y=samples[start : start + length],
            sr=rate,
            n_fft=spec.n_fft,
            hop_length=length // card.windows.frames,
            n_mels=spec.n_mels,
            fmin=spec.fmin,
            fmax=spec.fmax,
        )
        decibels = librosa.power_to_db(mel, ref=np.max, top_db=normalisation.range_db)
        windows.append(decibels.T[: card.windows.frames] / normalisation.range_db + 1)
    logits = session.run(None, {card.onnx.input: np.stack(windows).astype(np.float32)})[0]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return card.labels[int((powers / powers.sum(axis=1, keepdims=True)).sum(axis=0).argmax())]


@contextmanager
def seed_way(song: Path, bundle_folder: Path, *, processes: int, threads: int) -> Iterator[Ask]:
    """A pool of processes, each with so many threads, that answer the song the seeds' way; warmed up."""
    with ProcessPoolExecutor(processes, initializer=threadpool_limits, initargs=(threads,)) as pool:
        for done in [pool.submit(predict, song, bundle_folder, threads) for _ in range(processes)]:
            done.result()
        yield lambda: pool.submit(predict, song, bundle_folder, threads).result()
