"""The genres of wholetrack-crnn 2, and which tags of the taggers stand for each of them.

A genre that has at least ten labelled recordings to judge it by is scored; the others are given as tags only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

GTZAN = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
"""The genres with labelled training data."""

GENRES = (*GTZAN, "electronic", "ambient", "folk", "funk", "soul", "soundtrack")
"""The genres that are scored, of which exactly one applies."""

UNVERIFIED = ("house", "techno", "trance", "drum and bass", "latin", "punk", "world")
"""The genres that are given as tags, because there are too few recordings to judge them by."""

PARENTS: Mapping[str, str] = {
    "house": "electronic",
    "techno": "electronic",
    "trance": "electronic",
    "drum and bass": "electronic",
    "punk": "rock",
}
"""The coarser genre, which is scored, of some genres that are given as tags."""

AUDIOSET: Mapping[str, Sequence[str]] = {
    "blues": ("Blues",),
    "classical": ("Classical music",),
    "country": ("Country", "Bluegrass"),
    "disco": ("Disco",),
    "hiphop": ("Hip hop music",),
    "jazz": ("Jazz", "Swing music"),
    "metal": ("Heavy metal",),
    "pop": ("Pop music",),
    "reggae": ("Reggae",),
    "rock": ("Rock music", "Rock and roll", "Progressive rock", "Psychedelic rock"),
    "electronic": ("Electronic music", "Electronica", "Electronic dance music"),
    "ambient": ("Ambient music", "New-age music"),
    "folk": ("Folk music",),
    "funk": ("Funk",),
    "soul": ("Soul music", "Rhythm and blues"),
    "soundtrack": ("Soundtrack music", "Theme music", "Video game music"),
    "house": ("House music",),
    "techno": ("Techno",),
    "trance": ("Trance music",),
    "drum and bass": ("Drum and bass",),
    "latin": ("Music of Latin America", "Salsa music"),
    "punk": ("Punk rock",),
    "world": ("Traditional music", "Music of Africa", "Music of Asia", "Middle Eastern music", "Carnatic music"),
}
"""Tags of AudioSet (mn04) for each genre."""

NOT_MUSIC = (
    "Speech",
    "Male speech, man speaking",
    "Female speech, woman speaking",
    "Singing",
    "Choir",
    "Rapping",
    "Silence",
    "Sine wave",
    "Sound effect",
    "Noise",
    "Static",
    "White noise",
    "Pink noise",
)
"""Tags of AudioSet for voices, and for what is no music."""

_FIRST_MUSIC, _LAST_MUSIC = "Music", "Scary music"
"""AudioSet's tags between these are of music: instruments, genres, moods, uses."""

MSD: Mapping[str, Sequence[str]] = {
    "blues": ("blues",),
    "country": ("country",),
    "hiphop": ("Hip-Hop",),
    "jazz": ("jazz",),
    "metal": ("metal", "heavy metal"),
    "pop": ("pop",),
    "rock": ("rock", "classic rock", "alternative rock"),
    "electronic": ("electronic", "electronica", "electro"),
    "ambient": ("ambient",),
    "folk": ("folk",),
    "funk": ("funk",),
    "soul": ("soul", "rnb"),
    "house": ("House",),
    "punk": ("punk",),
}
"""Tags of the Million Song Dataset (musicnn, FCN) for each genre. It has none for the genres that are missing here."""

MSD_GENRES = tuple(genre for genre in (*GENRES, *UNVERIFIED) if genre in MSD)
"""The genres that have tags of the Million Song Dataset, in order."""


def kept_tags(labels: Sequence[str]) -> tuple[str, ...]:
    """Return those labels of AudioSet, in their order, that version 2 has as tags."""
    first, last = labels.index(_FIRST_MUSIC), labels.index(_LAST_MUSIC)
    return tuple(label for i, label in enumerate(labels) if first <= i <= last or label in NOT_MUSIC)


# Two of the three taggers were trained on the Million Song Dataset.
_MSD_SHARE = 2 / 3


def strongest(
    scores: Tensor, labels: Sequence[str], tags: Mapping[str, Sequence[str]], genres: Sequence[str]
) -> Tensor:
    """Return the strongest tag of each genre, ``[N, len(genres)]``.

    Args:
        scores: Standardised logits of tags, ``[N, len(labels)]``.
        labels: Names of those tags.
        tags: The tags of each genre.
        genres: The genres to return.
    """
    columns = [[labels.index(tag) for tag in tags[genre]] for genre in genres]
    return torch.stack([scores[:, column].amax(1) for column in columns], dim=1)


class TagMap(nn.Module):
    """Turns tags into the evidence for each genre, in deviations: a weighted mean of what the taggers say."""

    mean: Tensor
    deviation: Tensor
    msd_share: Tensor
    msd_columns: Tensor

    def __init__(self, labels: Sequence[str]) -> None:
        """Build the map for some tags of AudioSet, whose scale is set later.

        Args:
            labels: Names of the tags in the order of the logits; all that any genre needs.
        """
        super().__init__()
        self.labels = tuple(labels)
        self.register_buffer("mean", torch.zeros(len(labels)))
        self.register_buffer("deviation", torch.ones(len(labels)))
        share = [_MSD_SHARE if genre in MSD else 0.0 for genre in GENRES]
        self.register_buffer("msd_share", torch.tensor(share))
        column = [MSD_GENRES.index(genre) if genre in MSD else 0 for genre in GENRES]
        self.register_buffer("msd_columns", torch.tensor(column))

    def set_scale(self, logits: Tensor) -> None:
        """Set the mean and the deviation of the tags to those of a sample, ``[N, len(labels)]``."""
        self.mean.copy_(logits.mean(0))
        self.deviation.copy_(logits.std(0) + 1e-3)

    def standardised(self, logits: Tensor) -> Tensor:
        """Return tags in deviations from their mean, ``[N, len(labels)]``."""
        return (logits - self.mean) / self.deviation

    def forward(self, logits: Tensor, msd: Tensor) -> Tensor:
        """Return the evidence for each genre, ``[N, len(GENRES)]``.

        Args:
            logits: Logits of the tags of AudioSet, ``[N, len(labels)]``.
            msd: Evidence from the tags of the Million Song Dataset, ``[N, len(MSD_GENRES)]``.
        """
        audioset = strongest(self.standardised(logits), self.labels, AUDIOSET, GENRES)
        return audioset * (1 - self.msd_share) + msd[:, self.msd_columns] * self.msd_share
