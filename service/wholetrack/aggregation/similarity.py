"""Cosine similarity of embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def most_similar(query: NDArray[np.float32], vectors: NDArray[np.float32], *, limit: int) -> list[tuple[int, float]]:
    """Rank vectors by the cosine of their angle to a query.

    Args:
        query: ``[length]``, not all zeros.
        vectors: ``[n, length]``. A vector of zeros has a cosine of 0.
        limit: Maximum length of the ranking.

    Returns:
        Index and cosine, in [-1, 1], of the most similar vectors, in descending order of the cosine. Vectors with the
        same cosine keep their order.
    """
    wide = vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    unit = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    # Without rounding, vectors of the same direction but different lengths could be ranked in any order.
    cosines = np.round(np.clip(wide @ unit / np.where(lengths > 0, lengths, 1.0), -1.0, 1.0), 12) + 0.0
    order = np.argsort(-cosines, kind="stable")[:limit]
    return [(int(i), float(cosines[i])) for i in order]
