"""Windows and outputs that arrive in parts have the same scores as the whole track."""

from __future__ import annotations

import numpy as np
import pytest

from wholetrack.aggregation.live_scores import LiveScores
from wholetrack.aggregation.window_scores import WindowLog, track_scores
from wholetrack.inference.bundle import BUILT_IN_MODELS, load_bundles


@pytest.mark.parametrize("model", ["wholetrack-crnn-gtzan", "deepsound-crnn"])
@pytest.mark.parametrize("seed", range(5))
def test_parts_add_up_to_the_whole(model: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    card = load_bundles(BUILT_IN_MODELS)[model].card
    n = 40
    start_s = np.arange(n, dtype=np.float64) * np.float64(card.windows.hop_s)
    silent = rng.random(n) < 0.3
    outputs = rng.random((int((~silent).sum()), *card.output_shape)).astype(np.float32)
    log, live, parts = WindowLog(), LiveScores(card), []
    log.add(start_s, silent)
    # Outputs arrive in any order, after their windows.
    slices = [(i, outputs[i : i + 3]) for i in range(0, len(outputs), 3)]
    position = {int(w): i for i, w in enumerate(np.flatnonzero(~silent))}
    pending = sorted(slices, key=lambda _: rng.random())
    n_added = n_sound = 0
    while n_added < n or pending:
        if n_added < n:
            more = int(rng.integers(1, 8))
            live.add_windows(start_s[n_added : n_added + more], silent[n_added : n_added + more])
            n_added = min(n, n_added + more)
            n_sound = sum(w < n_added for w in position)
        for part in [part for part in pending if part[0] + len(part[1]) <= n_sound][:2]:
            live.add_outputs(*part)
            pending.remove(part)
        parts.append(live.take())
    whole = track_scores(log.times(), outputs, card)
    for field in ("start_s", "probabilities", "silent"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, field) for part in parts]), getattr(whole, field))
