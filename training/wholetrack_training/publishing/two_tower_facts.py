"""What wholetrack-crnn 2 started from, what taught it, and what its card says about both."""

from __future__ import annotations

from typing import Any

STARTED_FROM = (
    {
        "network": "mn04_as",
        "project": "EfficientAT",
        "url": "https://github.com/fschmid56/EfficientAT",
        "licence": "MIT",
        "paper": "arXiv:2211.04772",
        "trained_on": "AudioSet",
        "used_for": "initial weights of the music tower and of the tags; teacher",
    },
)
TAUGHT_BY = (
    {
        "network": "MSD_musicnn",
        "project": "musicnn",
        "url": "https://github.com/jordipons/musicnn",
        "licence": "ISC",
        "paper": "arXiv:1909.06654",
        "trained_on": "Million Song Dataset",
        "used_for": "teacher",
    },
    {
        "network": "msd_fcn",
        "project": "sota-music-tagging-models",
        "url": "https://github.com/minzwon/sota-music-tagging-models",
        "licence": "MIT",
        "paper": "arXiv:2006.00751",
        "trained_on": "Million Song Dataset",
        "used_for": "teacher",
    },
)


def trained_on(*, part: int) -> dict[str, Any]:
    """Return ``trained_on`` of the contract.

    Args:
        part: Fold that the network was not trained on; 0 if it was trained on all data.
    """
    return {
        "data": "GTZAN (spectrograms and excerpts), freely licensed music without labels",
        "protocol": "artist-filtered" if part else "all",
        "part": part,
        "started_from": [dict(entry) for entry in STARTED_FROM],
        "taught_by": [dict(entry) for entry in TAUGHT_BY],
    }
