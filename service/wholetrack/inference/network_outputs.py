"""What the outputs of a network mean, and whether they are those that its bundle expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wholetrack.contracts import OutputsSpec, Rows, unit_length
from wholetrack.errors import UnavailableModelError
from wholetrack.inference.bundle import Bundle
from wholetrack.inference.worker import Classifier

ELEMENTS = {
    "scores": "probability",
    "tags": "probability of a tag",
    "embedding": "component of an embedding",
}
"""What an element of each output is, for messages."""


def interpreted(outputs: Sequence[NDArray[np.float32]], spec: OutputsSpec) -> Rows:
    """Turn the outputs of a network into probabilities and vectors of unit length.

    Args:
        outputs: The outputs in the order of ``spec.kinds``, ``[n, *shape]`` each.
        spec: What they are.
    """
    remaining = iter(outputs)
    scores = next(remaining)
    found = [scores if spec.scores.yields == "probabilities" else _softmax(scores)]
    if spec.tags:
        tags = next(remaining)
        found.append(tags if spec.tags.yields == "probabilities" else _sigmoid(tags))
    if spec.embedding:
        found.append(unit_length(next(remaining)))
    return Rows(tuple(found))


def check_golden_outputs(classifier: Classifier, bundle: Bundle, *, tolerance: float) -> None:
    """Compare the outputs for the bundle's golden windows.

    Raises:
        UnavailableModelError: If an output differs by more than the tolerance.
    """
    found = Rows.joined([classifier.run(batch) for batch in _batches(bundle.golden.windows, classifier.max_batch)])
    for kind, output, expected in zip(
        bundle.card.outputs.kinds, found.arrays, bundle.golden.outputs.arrays, strict=True
    ):
        worst = float(np.abs(output - expected).max())
        # Not "worst > tolerance": a NaN must fail as well.
        if not worst <= tolerance:
            raise wrong_outputs(
                bundle,
                classifier.device,
                f"gives wrong outputs on {classifier.device} in {classifier.precision}: a golden {ELEMENTS[kind]} is "
                f"off by {worst:.3g}, and the tolerance is {tolerance:g}",
            )


def wrong_outputs(bundle: Bundle, device: str, problem: str) -> UnavailableModelError:
    """Return the error for a network that gives wrong outputs."""
    return UnavailableModelError(f"{bundle.card.name} {problem}", device=device, reason=f"the network {problem}")


def _batches(windows: Rows, size: int) -> Iterator[Rows]:
    for first in range(0, len(windows), size):
        yield windows[first : first + size]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # In this form exp overflows for no logit.
    probabilities: NDArray[np.float32] = np.float32(0.5) * (np.tanh(np.float32(0.5) * logits) + np.float32(1.0))
    return probabilities
