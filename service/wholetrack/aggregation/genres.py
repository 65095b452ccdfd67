"""The genres of a track, in the labels of the model or in one of its taxonomies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wholetrack.aggregation.confidence import confidence, in_domain
from wholetrack.aggregation.ranking import majority_vote, summed_score
from wholetrack.aggregation.sections import sections
from wholetrack.aggregation.taxonomy import folded, folded_confidence
from wholetrack.contracts import ModelCard, Ranking, Section, TaxonomySpec, WindowScores


@dataclass(frozen=True, slots=True)
class TrackGenres:
    """What the scores of all windows say about the track.

    Attributes:
        labels: Genre of each column of ``windows.probabilities``.
        windows: The scores in which the genres are read.
        summed_score: Genres by summed score.
        majority_vote: Genres by majority vote.
        confidence: Calibrated probability of the leading genre.
        in_domain: Whether the recording resembles the training data; None if the model cannot tell.
        sections: Parts of the track with one genre each.
    """

    labels: tuple[str, ...]
    windows: WindowScores
    summed_score: Ranking
    majority_vote: Ranking
    confidence: float
    in_domain: bool | None
    sections: tuple[Section, ...]


def track_genres(
    scores: WindowScores,
    card: ModelCard,
    taxonomy: TaxonomySpec | None,
    *,
    duration_s: float,
    tags: Mapping[str, float] | None,
) -> TrackGenres:
    """Summarise the scores of a track.

    Args:
        scores: Scores of the labels of the model, for all windows.
        card: Contents of the model's ``model.json``.
        taxonomy: The taxonomy in which to read them; None for the labels of the model.
        duration_s: Length of the track, in seconds.
        tags: Calibrated probability of each tag for the track; None for a silent track or a model without tags.
    """
    of_labels = summed_score(scores, card.labels)
    if taxonomy is None:
        labels, windows, summed = card.labels, scores, of_labels
        sure = confidence(summed, card.calibration)
    else:
        labels, windows = tuple(taxonomy.genres), folded(scores, card.labels, taxonomy)
        summed = summed_score(windows, labels)
        sure = folded_confidence(of_labels, summed, card.labels, taxonomy, card.calibration)
    return TrackGenres(
        labels=labels,
        windows=windows,
        summed_score=summed,
        majority_vote=majority_vote(windows, labels),
        confidence=sure,
        # The threshold was chosen on the labels of the model.
        in_domain=in_domain(scores, card.domain, tags=tags),
        sections=sections(windows, labels, window_s=card.step_s, duration_s=duration_s),
    )
