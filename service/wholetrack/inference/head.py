"""A head: genres as a linear function of the embedding and the tags, in place of the scores of the network."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import HeadCard, HeadInput, ModelCard, Rows

# Probabilities of 0 and 1 have no finite logit, and float32 distinguishes few numbers next to 1.
_MIN_PROBABILITY = 1e-4


@dataclass(frozen=True, slots=True)
class Head:
    """Weights that turn outputs of a network into logits of the genres.

    Attributes:
        weights: ``[labels, length]``.
        bias: ``[labels]``.
        inputs: Outputs of the network that it uses, in the order of the columns.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    inputs: tuple[HeadInput, ...]

    def probabilities(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of each genre, ``[n, labels]``, for windows ``[n, length]``."""
        logits = windows @ self.weights.T + self.bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def apply(self, outputs: Rows, kinds: Sequence[str]) -> Rows:
        """Return the outputs of a network with the scores of this head.

        Args:
            outputs: All outputs of the network; the scores come first.
            kinds: Kind of each of them (``card.outputs.kinds``).
        """
        return Rows.of(self.probabilities(head_windows(outputs, kinds, self.inputs)), *outputs.arrays[1:])


def head_windows(outputs: Rows, kinds: Sequence[str], inputs: Sequence[HeadInput]) -> NDArray[np.float32]:
    """Return what a head uses of each window, ``[n, length]``: the embedding, and the logits of the tags.

    Args:
        outputs: All outputs of the network. Tags are probabilities before their calibration.
        kinds: Kind of each of them.
        inputs: Kinds that the head uses, in the order of the columns.
    """
    arrays = dict(zip(kinds, outputs.arrays, strict=True))
    return np.concatenate([_logits(arrays[kind]) if kind == "tags" else arrays[kind] for kind in inputs], axis=1)


def input_lengths(inputs: Sequence[HeadInput], base: ModelCard) -> tuple[int, ...]:
    """Return how many numbers each input of a head has.

    Args:
        inputs: The inputs.
        base: The contract of the model whose network the head uses.

    Raises:
        ValueError: If the network does not yield one of them.
    """
    tags, embedding = base.outputs.tags, base.outputs.embedding
    lengths = {"tags": len(tags.labels) if tags else 0, "embedding": embedding.length if embedding else 0}
    if missing := [kind for kind in inputs if not lengths[kind]]:
        raise ValueError(
            f"{base.name} {base.version}, whose network it uses, yields no {' and no '.join(missing)}: fit the head to "
            "a model that does"
        )
    return tuple(lengths[kind] for kind in inputs)


def read_head(content: bytes, card: HeadCard, base: ModelCard) -> Head:
    """Read the weights of a head and check that they fit.

    Args:
        content: The file.
        card: The contract of the head.
        base: The contract of the model whose network it uses.

    Raises:
        ValueError: If they do not fit.
    """
    inputs = card.head.inputs
    lengths = input_lengths(inputs, base)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if missing := [name for name in ("weights", "bias") if name not in arrays]:
            raise ValueError(f"{card.head.file} has no {' and no '.join(missing)}")
        head = Head(arrays["weights"].astype(np.float32), arrays["bias"].astype(np.float32), inputs)
    if head.weights.ndim != 2 or head.weights.shape[1] != sum(lengths):
        expected = " and ".join(f"{kind} ({length})" for kind, length in zip(inputs, lengths, strict=True))
        raise ValueError(
            f"{card.head.file} has weights for {head.weights.shape[-1]} numbers per window, and {base.name} "
            f"{base.version} yields {sum(lengths)} of them, {expected}: fit the head again to that model"
        )
    if (len(head.weights), head.bias.shape) != (len(card.labels), (len(card.labels),)):
        raise ValueError(
            f"{card.head.file} is for {len(head.weights)} genres, and model.json has {len(card.labels)} labels"
        )
    if not (np.isfinite(head.weights).all() and np.isfinite(head.bias).all()):
        raise ValueError(f"{card.head.file} contains weights that are not finite: fit the head again")
    return head


def _logits(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of probabilities, which are bounded."""
    bounded = np.clip(probabilities, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return np.asarray(np.log(bounded) - np.log1p(-bounded), dtype=np.float32)
