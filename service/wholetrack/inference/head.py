"""A head: genres as a linear function of the embedding, in place of the scores of the network."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import HeadCard, ModelCard, Rows


@dataclass(frozen=True, slots=True)
class Head:
    """Weights that turn an embedding of unit length into logits of the genres.

    Attributes:
        weights: ``[labels, length]``.
        bias: ``[labels]``.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of each genre, ``[n, labels]``, for embeddings ``[n, length]``."""
        logits = embeddings @ self.weights.T + self.bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def apply(self, outputs: Rows) -> Rows:
        """Return the outputs of a network, of which the embedding is the last, with the scores of this head."""
        return Rows.of(self.probabilities(outputs.arrays[-1]), *outputs.arrays[1:])


def read_head(content: bytes, card: HeadCard, base: ModelCard) -> Head:
    """Read the weights of a head and check that they fit.

    Args:
        content: The file.
        card: The contract of the head.
        base: The contract of the model whose network it uses.

    Raises:
        ValueError: If they do not fit.
    """
    embedding = base.outputs.embedding
    if embedding is None:
        raise ValueError(
            f"{base.name} {base.version}, whose network it uses, yields no embedding: fit the head to a model that does"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if missing := [name for name in ("weights", "bias") if name not in arrays]:
            raise ValueError(f"{card.head.file} has no {' and no '.join(missing)}")
        head = Head(arrays["weights"].astype(np.float32), arrays["bias"].astype(np.float32))
    if head.weights.ndim != 2 or head.weights.shape[1] != embedding.length:
        raise ValueError(
            f"{card.head.file} is for embeddings of the length {head.weights.shape[-1]}, and those of {base.name} "
            f"{base.version} have the length {embedding.length}: fit the head again to that model"
        )
    if (len(head.weights), head.bias.shape) != (len(card.labels), (len(card.labels),)):
        raise ValueError(
            f"{card.head.file} is for {len(head.weights)} genres, and model.json has {len(card.labels)} labels"
        )
    if not (np.isfinite(head.weights).all() and np.isfinite(head.bias).all()):
        raise ValueError(f"{card.head.file} contains weights that are not finite: fit the head again")
    return head
