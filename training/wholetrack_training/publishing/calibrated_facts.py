"""The figures of wholetrack-crnn 2, and what is calibrated with the outputs of the networks of its folds."""

from __future__ import annotations

from wholetrack.contracts import CalibrationSpec, DomainSpec
from wholetrack_training.errors import PublishingError
from wholetrack_training.export.two_towers import FLATTEST, KNOWN_GENRE
from wholetrack_training.publishing.two_tower_facts import trained_on
from wholetrack_training.publishing.two_towers import TwoTowerFacts
from wholetrack_training.results.audio_figures import as_document, audio_figures
from wholetrack_training.results.judged_files import Judged
from wholetrack_training.results.tag_calibration import calibrate_tags
from wholetrack_training.systems.taxonomy import GENRES


def calibrated_facts(judged: Judged, *, name: str, version: str, licence: str) -> TwoTowerFacts:
    """Return the facts of a bundle.

    Args:
        judged: Outputs of the networks of all folds, and of the published one.
        name: Name of the model.
        version: Version of the bundle.
        licence: Licence of the network, as an SPDX expression.

    Raises:
        PublishingError: If the record belongs to another model.
    """
    if judged.labels != GENRES or KNOWN_GENRE not in judged.window_tags:
        raise PublishingError(f"the record {judged.label} does not belong to wholetrack-crnn 2")
    figures = audio_figures(judged)
    assert figures.domain
    assert figures.domain.known
    tags = calibrate_tags(judged)
    # The confusion matrices and the failures are in docs/RESULTS.md.
    document = {name: value for name, value in as_document(figures).items() if name not in {"groups", "failures"}}
    for part in ("windows", "clips", "windows_unbiased", "clips_unbiased"):
        document[part].pop("confusion")
    return TwoTowerFacts(
        name=name,
        version=version,
        licence=licence,
        trained_on=trained_on(part=0),
        metrics={
            "judged": judged.label,
            "date": judged.date,
            **document,
            "tags": tags.figures,
        },
        bias=figures.bias,
        known=figures.domain.known,
        flattest=FLATTEST,
        calibration=CalibrationSpec(temperature=figures.temperature),
        domain=DomainSpec(tag=KNOWN_GENRE, least_probability=figures.domain.threshold),
        tag_calibration=tags.specs,
        unverified=tuple(tag for tag in judged.tags if tag not in tags.specs and tag != KNOWN_GENRE),
    )
