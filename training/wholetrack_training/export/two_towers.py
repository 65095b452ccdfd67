"""wholetrack-crnn 2 as an ONNX network, and what ``model.json`` states about its inputs, outputs and genres."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from wholetrack.contracts import (
    EmbeddingSpec,
    InputSpec,
    OutputsSpec,
    ScoresSpec,
    TagSpec,
    TagsSpec,
    TaxonomySpec,
    WindowingSpec,
)
from wholetrack_training.export.to_onnx import OPSET, ExportedGraph
from wholetrack_training.systems.checkpoints import new_network
from wholetrack_training.systems.network_inputs import SPECTRUM_FEATURES
from wholetrack_training.systems.tag_kinds import KINDS, published_tags
from wholetrack_training.systems.taxonomy import AUDIOSET, GENRES, GTZAN, PARENTS, UNVERIFIED
from wholetrack_training.systems.two_towers import (
    AUDIO,
    MUSIC_BANDS,
    MUSIC_FEATURES,
    MUSIC_FRAMES,
    SPECTRUM_BANDS,
    SPECTRUM_FRAMES,
    WINDOW_S,
    TwoTowerCrnn,
)

SPECTRUM, MUSIC = "spectrum", "music"
SCORES, TAGS, EMBEDDING = "scores", "tags", "embedding"

HOP_S = 1.0
"""The default hop, a whole number of steps of the music tower."""

KNOWN_GENRE = "known genre"
"""The tag that the music belongs to one of the genres, which decides whether a recording is in domain."""

FLATTEST = 0.3
"""Factor of the logits of a window of no known genre in the published network; that of a known one is 1.

Such windows then count less in the summed score, and what is no music gets a low confidence. Factors of 0.5, 0.7 and 1
were tried: the accuracy hardly differs, and the largest confidence for sounds that are no music is 0.37, 0.49, 0.60 and
0.80.
"""


@dataclass(frozen=True, slots=True)
class KnownGenre:
    """The logit of the tag :data:`KNOWN_GENRE`, a linear function of four values of a window.

    The energy is the logarithm of the summed exponentials of the genres' logits (Liu et al. 2020): unlike the
    probabilities, it is low if no genre's logit is high.

    Attributes:
        energy: Factor of the energy.
        peak: Factor of the logarithm of the largest probability.
        not_music: Factor of the largest logit of the tags that are not music.
        music: Factor of the logit of AudioSet's label Music.
        constant: Added to the sum.
    """

    energy: float = 1.0
    peak: float = 0.0
    not_music: float = 0.0
    music: float = 0.0
    constant: float = 0.0


class PublishedTwoTowers(nn.Module):
    """A network with the tags that are published.

    These are AudioSet's labels, then the genres that are given as tags only, then :data:`KNOWN_GENRE`.

    Args:
        network: The trained network, which stays as it is.
        bias: Added to the logits of some genres, by name; the tag of known genres does without it.
        known: The logit of the last tag.
        flattest: Factor of the logits of genres if the last tag does not apply at all; the factor is 1 if it applies
            with certainty. The bias is added afterwards.
    """

    bias: Tensor
    flattest: Tensor
    known: Tensor

    def __init__(
        self, network: TwoTowerCrnn, bias: Mapping[str, float], known: KnownGenre, *, flattest: float = 1.0
    ) -> None:
        super().__init__()
        factors = (known.energy, known.peak, known.not_music, known.music, known.constant)
        self.register_buffer("known", torch.tensor(factors))
        self.register_buffer("bias", torch.tensor([bias.get(genre, 0.0) for genre in GENRES]))
        self.network = copy.deepcopy(network).eval()
        self.register_buffer("flattest", torch.tensor(flattest))
        self.labels = labels = network.head.tag_map.labels
        self.tags = published_tags(labels)
        self._rows = [labels.index(tag) for tag in self.tags]
        self._groups = [[labels.index(tag) for tag in AUDIOSET[genre]] for genre in UNVERIFIED]
        self._not_music = [labels.index(tag) for tag in self.tags if KINDS[tag] == "not_music"]
        self._music = labels.index("Music")

    def forward(self, spectrum: Tensor, music: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of genres and tags, and the embedding, of a batch of windows."""
        scores, tags, embedding = self.network(spectrum, music)
        genres = [tags[:, columns].amax(1, keepdim=True) for columns in self._groups]
        known = self._known(scores, tags)
        factors = self.flattest + (1.0 - self.flattest) * torch.sigmoid(known)
        return factors * scores + self.bias, torch.cat((tags[:, self._rows], *genres, known), dim=1), embedding

    def _known(self, scores: Tensor, tags: Tensor) -> Tensor:
        largest = scores.amax(1, keepdim=True)
        # Written out, because the exporter turns logsumexp into nodes that handle infinities.
        energy = largest + (scores - largest).exp().sum(1, keepdim=True).log()
        not_music = tags[:, self._not_music].amax(1, keepdim=True)
        music = tags[:, self._music : self._music + 1]
        values = torch.cat((energy, largest - energy, not_music, music), dim=1)
        return (values * self.known[:4]).sum(1, keepdim=True) + self.known[4]


def export_two_towers(network: PublishedTwoTowers) -> bytes:
    """Export the network with its two inputs and three outputs.

    Raises:
        ExportError: If the graph has a node that the CUDA provider would run on the CPU.
    """
    return _graph_for(network.labels).with_weights_of(network)


@cache
def _graph_for(labels: tuple[str, ...]) -> ExportedGraph:
    """Return the graph of networks with these tags; the networks of all folds share it."""
    shapes = {SPECTRUM: (SPECTRUM_FRAMES, SPECTRUM_BANDS), MUSIC: (MUSIC_FRAMES, MUSIC_BANDS)}
    network = PublishedTwoTowers(new_network(labels), {}, KnownGenre())
    return ExportedGraph(network, inputs=shapes, outputs=(SCORES, TAGS, EMBEDDING))


def interface_of(network: PublishedTwoTowers) -> dict[str, Any]:
    """Return the fields of ``model.json`` that follow from the network: audio, windows, inputs, outputs and genres."""
    return {
        "labels": GENRES,
        "parents": dict(PARENTS),
        "taxonomies": {
            "gtzan": TaxonomySpec(
                summary="The ten genres of GTZAN, for comparison; the probabilities of the other genres are left out.",
                genres={genre: (genre,) for genre in GTZAN},
            )
        },
        "audio": AUDIO,
        "windows": WindowingSpec(window_s=float(WINDOW_S), hop_s=HOP_S, last_window="align_to_end"),
        "inputs": (
            InputSpec(
                name=SPECTRUM,
                shape=("N", SPECTRUM_FRAMES, SPECTRUM_BANDS),
                frames=SPECTRUM_FRAMES,
                features=SPECTRUM_FEATURES,
            ),
            InputSpec(
                name=MUSIC,
                shape=("N", MUSIC_FRAMES, MUSIC_BANDS),
                frames=MUSIC_FRAMES,
                features=MUSIC_FEATURES,
            ),
        ),
        "outputs": OutputsSpec(
            scores=ScoresSpec(name=SCORES, yields="logits"),
            tags=TagsSpec(
                name=TAGS,
                yields="logits",
                labels=(
                    *(TagSpec.model_validate({"name": tag, "kind": KINDS[tag]}) for tag in network.tags),
                    *(TagSpec(name=genre, kind="genre") for genre in UNVERIFIED),
                    TagSpec(name=KNOWN_GENRE, kind="other"),
                ),
            ),
            embedding=EmbeddingSpec(name=EMBEDDING, length=network.network.head.msd.in_features),
        ),
        "opset": OPSET,
    }
