"""wholetrack-crnn 2: two convolutional towers over the same audio, whose sequences a GRU joins.

The spectrum tower is wholetrack-crnn 1 (128 bands, 13 frames per second), which all of GTZAN's spectrograms train. The
music tower starts from mn04, which was trained on AudioSet. A genre's score is a sum of two parts: how strongly the
taggers' tags for the genre apply (:mod:`.taxonomy`), and a linear classifier of the joined sequences and the tags. The
first part knows genres without labelled recordings; the other one learns from labels. The spectrum tower's own
prediction of the genre takes no part: it is right more often on GTZAN, and less often on other music.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wholetrack.contracts import Affine, AudioSpec, FeatureSpec
from wholetrack_training.systems.layers import AttentionPool
from wholetrack_training.systems.mobilenet import EMBEDDING, MusicTrunk, TrunkShape
from wholetrack_training.systems.taxonomy import GENRES, GTZAN, MSD_GENRES, TagMap
from wholetrack_training.systems.wholetrack_crnn import Crnn, CrnnShape

WINDOW_S = 3
SPECTRUM_FRAMES, SPECTRUM_BANDS = 39, 128
MUSIC_FRAMES, MUSIC_BANDS = 288, 112

AUDIO = AudioSpec(sample_rate=22050)
"""Both spectrograms are computed from the same samples."""

# mn04 has 128 bands, evenly spaced on the mel scale from 0 to 15 kHz, which makes 129 intervals. These are its lowest
# 112, up to 10 kHz: encoders differ above that, and half the sample rate is 11 kHz.
_MN04_FMAX_HZ, _MN04_INTERVALS = 15000.0, 129
_MUSIC_FMAX_HZ = 700.0 * math.expm1((MUSIC_BANDS + 1) / _MN04_INTERVALS * math.log1p(_MN04_FMAX_HZ / 700.0))

MUSIC_FEATURES = FeatureSpec(
    # mn04's filter (0.97 at 32 kHz), window (25 ms) and levels, as closely as 22,050 Hz allows. The gain makes up for
    # the shorter window, the narrower bins and the filter.
    pre_emphasis=0.957,
    n_fft=1024,
    win_length=551,
    window="hann_symmetric",
    gain=0.699,
    # 96 frames per second in place of 100, so that a hop of 1 s is a whole number of the trunk's steps (3 per second).
    frames_per_second=96,
    n_mels=MUSIC_BANDS,
    fmin=0.0,
    fmax=_MUSIC_FMAX_HZ,
    mel_scale="kaldi",
    mel_norm=None,
    log="ln",
    offset=1e-5,
    normalisation=Affine(add=4.5, divide_by=5.0),
)
"""The spectrogram of the music tower."""

MUSIC_TRUNK = TrunkShape()


@dataclass(frozen=True, slots=True)
class JointShape:
    """Layer sizes of what joins the towers.

    Attributes:
        narrowed: Channels of the music tower that enter the GRU.
        hidden: Units of the GRU in each direction.
        dropout: Dropout before the last layers.
    """

    narrowed: int = 96
    hidden: int = 64
    dropout: float = 0.4


class TowerOutputs(NamedTuple):
    """What the two towers yield for a batch of windows.

    Attributes:
        spectrum: Outputs of the spectrum tower's GRU, ``[N, 19, 128]``.
        music: Activations of the music tower's last layer, averaged over bands, ``[N, 9, 384]``.
    """

    spectrum: Tensor
    music: Tensor


class Predictions(NamedTuple):
    """What the network yields for a batch of windows.

    Attributes:
        scores: Logits of the genres, ``[N, len(GENRES)]``.
        tags: Logits of the tags, ``[N, n_tags]``.
        embedding: Vector that is similar for similar music, ``[N, length]``.
        msd: How strongly the tags of the Million Song Dataset for each genre apply, in deviations,
            ``[N, len(MSD_GENRES)]``. Needed to train the network; not exported.
    """

    scores: Tensor
    tags: Tensor
    embedding: Tensor
    msd: Tensor


class TwoTowerCrnn(nn.Module):
    """Maps the two spectrograms of each window to genres, tags and an embedding."""

    def __init__(self, head: JointHead) -> None:
        super().__init__()
        self.spectrum = Crnn(CrnnShape(centred=True, masked_top_bands=6), n_mels=SPECTRUM_BANDS, n_labels=len(GTZAN))
        self.spectrum_msd = nn.Linear(self.spectrum.classify.in_features, len(MSD_GENRES))
        self.music = MusicTrunk(MUSIC_TRUNK)
        self.head = head

    def towers(self, spectrum: Tensor, music: Tensor) -> TowerOutputs:
        """Run the towers on windows ``[N, 39, 128]`` and ``[N, 288, 112]``."""
        activations = self.music(music.transpose(1, 2).unsqueeze(1))
        return TowerOutputs(self.spectrum.sequence(spectrum), activations.mean(2).transpose(1, 2))

    def predict(self, towers: TowerOutputs) -> Predictions:
        """Return the predictions from the outputs of the towers."""
        out: Predictions = self.head(towers, self.spectrum_msd(self.spectrum.pool(towers.spectrum)))
        return out

    def forward(self, spectrum: Tensor, music: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, tags and embedding of a batch of windows."""
        return self.predict(self.towers(spectrum, music))[:3]


class JointHead(nn.Module):
    """Joins the towers.

    A genre's score is the sum of the evidence from tags (:class:`.TagMap`), of the log probability of a linear
    classifier of GTZAN's genres, and of a bias.
    """

    bias: Tensor

    def __init__(self, shape: JointShape, music: TaggerHead, tag_map: TagMap) -> None:
        """Build the head.

        Args:
            shape: Layer sizes.
            music: mn04's head, for the tags that are needed.
            tag_map: Which of those tags stand for each genre.
        """
        super().__init__()
        sequence = 2 * CrnnShape().hidden
        self.spectrum_norm, self.music_norm = nn.LayerNorm(sequence), nn.LayerNorm(EMBEDDING)
        self.narrow = nn.Linear(EMBEDDING, shape.narrowed)
        self.gru = nn.GRU(sequence + shape.narrowed, shape.hidden, bidirectional=True, batch_first=True)
        self.attention = AttentionPool(2 * shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)
        length = 4 * shape.hidden + 2 * sequence + EMBEDDING
        self.music = music
        self.tag_map = tag_map
        self.msd = nn.Linear(length, len(MSD_GENRES))
        # Starts with what the spectrum tower says.
        nn.init.zeros_(self.msd.weight)
        nn.init.zeros_(self.msd.bias)
        self.classify = nn.Linear(length + len(tag_map.labels), len(GTZAN))
        self.register_buffer("bias", torch.zeros(len(GENRES)))

    def forward(self, towers: TowerOutputs, prior: Tensor) -> Predictions:
        """Return the predictions.

        Args:
            towers: Outputs of the towers.
            prior: What the spectrum tower alone says about the tags of the Million Song Dataset for each genre,
                ``[N, len(MSD_GENRES)]``. Many more spectrograms than recordings of GTZAN have taught it.
        """
        spectrum, music = self.spectrum_norm(towers.spectrum), self.music_norm(towers.music)
        # 19 steps of the spectrum tower become 9: the last, incomplete pair is dropped.
        paired = nn.functional.avg_pool1d(spectrum.transpose(1, 2), 2).transpose(1, 2)
        x, _ = self.gru(torch.cat((paired, torch.relu(self.narrow(music))), dim=2))
        pooled = (self.attention(x), x.mean(1), spectrum.mean(1), spectrum.amax(1), music.mean(1))
        joined = torch.cat(pooled, dim=1)
        tags, msd = self.music(towers.music.mean(1)), prior + self.msd(self.dropout(joined))
        known = torch.log_softmax(self.classify(self.labelled_features(joined, tags)), dim=1)
        # Genres without labels neither gain nor lose: they get the mean of the others.
        unknown = known.mean(1, keepdim=True).expand(-1, len(GENRES) - len(GTZAN))
        scores = self.tag_map(tags, msd) + torch.cat((known, unknown), dim=1) + self.bias
        return Predictions(scores, tags, joined, msd)

    def labelled_features(self, joined: Tensor, tags: Tensor) -> Tensor:
        """Return the features that labels classify: the embedding and the standardised tags."""
        return torch.cat((joined, self.tag_map.standardised(tags)), dim=1)


class TaggerHead(nn.Module):
    """The two dense layers of mn04 for some of its tags."""

    def __init__(self, hidden: int, n_tags: int) -> None:
        super().__init__()
        self.hidden, self.tags = nn.Linear(EMBEDDING, hidden), nn.Linear(hidden, n_tags)

    @classmethod
    def of(cls, hidden: nn.Linear, tags: nn.Linear, rows: Sequence[int]) -> TaggerHead:
        """Return the head of a published network, reduced to some of its tags."""
        head = cls(hidden.out_features, len(rows))
        head.hidden.load_state_dict(hidden.state_dict())
        with torch.no_grad():
            head.tags.weight.copy_(tags.weight[list(rows)])
            head.tags.bias.copy_(tags.bias[list(rows)])
        return head

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits of the tags."""
        logits: Tensor = self.tags(nn.functional.hardswish(self.hidden(embedding)))
        return logits
