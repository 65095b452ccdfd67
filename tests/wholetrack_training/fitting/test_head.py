"""Fitting of heads: what the weights depend on, and which genres they can tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack.contracts import HeadInput
from wholetrack_training.fitting.head import HeadData, cross_validate, fit_head, track_shares

pytestmark = pytest.mark.torch

N_EMBEDDING, N_TAGS = 400, 4
N_EACH = 12


def made_up(shifts: NDArray[np.float64]) -> HeadData:
    """Return tracks of three windows with noise in all columns.

    Args:
        shifts: What is added for each genre, ``[n_genres, columns]``.
    """
    rng = np.random.default_rng(0)
    genres = np.repeat(np.arange(len(shifts)), N_EACH)
    tracks = rng.normal(0, 1, (len(genres), 1, N_EMBEDDING + N_TAGS)) + rng.normal(0, 0.1, (len(genres), 3, 1))
    tracks += shifts[genres][:, None, :]
    lengths: dict[HeadInput, int] = {"embedding": N_EMBEDDING, "tags": N_TAGS}
    return HeadData(lengths, list(tracks.astype(np.float32)), genres, list(range(len(genres))))


def recall(data: HeadData) -> float:
    return float((cross_validate(data, n_folds=4).shares.argmax(axis=1) == data.genres).mean())


def test_a_few_tags_count_as_much_as_a_long_embedding() -> None:
    shifts = np.zeros((3, N_EMBEDDING + N_TAGS))
    shifts[:, N_EMBEDDING : N_EMBEDDING + 3] = 3 * np.eye(3)
    data = made_up(shifts)
    assert recall(data) > 0.9
    # Weighted like equal columns, the tags would be lost in the noise of the others.
    as_one = HeadData({"embedding": N_EMBEDDING + N_TAGS}, data.windows, data.genres, data.groups)
    assert recall(as_one) < 0.8


def test_the_scale_of_the_inputs_does_not_matter() -> None:
    shifts = np.random.default_rng(1).normal(0, 0.5, (3, N_EMBEDDING + N_TAGS))
    data = made_up(shifts)
    factors = np.concatenate((np.full(N_EMBEDDING, 0.01), np.full(N_TAGS, 5.0))).astype(np.float32)
    scaled = HeadData(data.lengths, [windows * factors for windows in data.windows], data.genres, data.groups)
    one, other = fit_head(data, 3), fit_head(scaled, 3)
    assert one.inputs == other.inputs == ("embedding", "tags")
    for own, others in zip(data.windows, scaled.windows, strict=True):
        np.testing.assert_allclose(track_shares(one, own), track_shares(other, others), atol=1e-3)


def test_two_genres_and_a_genre_without_tracks() -> None:
    """Scikit-learn returns one row of coefficients for two classes, and none for a class without samples."""
    data = made_up(np.random.default_rng(1).normal(0, 0.5, (2, N_EMBEDDING + N_TAGS)))
    head = fit_head(data, 3)
    assert head.weights.shape == (3, N_EMBEDDING + N_TAGS)
    shares = np.array([track_shares(head, windows) for windows in data.windows])
    assert (shares.argmax(axis=1) == data.genres).all()
    assert shares[:, 2].max() < 1e-3
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
