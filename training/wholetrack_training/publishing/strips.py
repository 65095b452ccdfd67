"""The second graph of a bundle, which classifies all windows of a strip of frames at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from torch import nn

from wholetrack.contracts import Strip, StripsSpec
from wholetrack_training.data.tracks import TrackSet
from wholetrack_training.errors import PublishingError
from wholetrack_training.export.shared_trunk import FRAMES, STARTS, export_strip_network
from wholetrack_training.export.to_onnx import INPUT, OUTPUT
from wholetrack_training.systems.recipe import Recipe
from wholetrack_training.systems.shared_trunk_crnn import SharedTrunkCrnn

_TOLERANCE = 1e-5
# Windows at even and odd frames, with more and with less overlap than at the default hop.
_HOPS = (5, 13, 26)
_MAX_TRACKS = 10


@dataclass(frozen=True, slots=True)
class PublishedStrips:
    """The graph, and what is stated about it.

    Attributes:
        spec: Its part of the contract.
        content: The ONNX file.
        difference: Largest difference of a probability from that of the graph for single windows.
    """

    spec: StripsSpec
    content: bytes
    difference: float


def publish_strips(network: nn.Module, onnx: bytes, tracks: TrackSet, recipe: Recipe) -> PublishedStrips | None:
    """Export the graph for strips, if the network has a shared trunk, and compare both graphs on some tracks.

    Args:
        network: The trained network.
        onnx: Its graph for single windows.
        tracks: Tracks to compare on.
        recipe: The recipe of the network.

    Raises:
        ExportError: If the network cannot be exported.
        PublishingError: If the graphs disagree.
    """
    if not isinstance(network, SharedTrunkCrnn):
        return None
    content = export_strip_network(network, n_mels=recipe.features.n_mels)
    whole, strips = (ort.InferenceSession(graph, providers=["CPUExecutionProvider"]) for graph in (onnx, content))
    worst, length = 0.0, recipe.windows.frames
    for track in tracks.tracks[:_MAX_TRACKS]:
        for hop in _HOPS:
            strip = Strip(track.frames, np.arange(0, len(track.frames) - length + 1, hop, dtype=np.int64), length)
            expected = whole.run([OUTPUT], {INPUT: strip.windows().arrays[0]})[0]
            found = strips.run([OUTPUT], {FRAMES: strip.frames, STARTS: strip.starts})[0]
            worst = max(worst, float(np.abs(_softmax(found) - _softmax(expected)).max(initial=0.0)))
    if not worst <= _TOLERANCE:
        raise PublishingError(
            f"a probability differs by {worst:.2g} between both graphs of the network; the limit is {_TOLERANCE:g}"
        )
    spec = StripsSpec(sha256=hashlib.sha256(content).hexdigest(), frames=FRAMES, starts=STARTS)
    return PublishedStrips(spec, content, worst)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
