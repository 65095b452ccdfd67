"""The figures in ``model.json``, and the parameters chosen from them: the temperature and the domain threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from wholetrack.contracts import CalibrationSpec, DomainSpec, ModelCard
from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.calibration import calibrate, find_domain
from wholetrack_training.results.records import Record
from wholetrack_training.results.summary import METRICS, summarise
from wholetrack_training.systems.recipe import Recipe


def with_figures(card: ModelCard, records: Sequence[Record], recipe: Recipe) -> ModelCard:
    """Return a contract with the figures of runs, and with what is chosen on their artist-filtered folds.

    Args:
        card: The contract; figures that do not depend on the records are kept.
        records: Runs of the recipe.
        recipe: The recipe of the bundle.
    """
    folds = [record for record in records if record.protocol == Protocol.ARTIST_FILTERED]
    calibration = calibrate(folds) if len(folds) > 1 else None
    domain = find_domain(folds) if len(folds) > 1 and recipe.uses_outliers else None
    kept = {name: value for name, value in card.metrics.items() if name not in METRICS.values()}
    chosen = {
        "calibration": calibration and asdict(calibration),
        "domain": domain and asdict(domain),
    }
    helps = calibration and calibration.ece_after < calibration.ece_before
    return card.model_copy(
        update={
            "metrics": {**summarise(records), **kept, **chosen},
            # Only a temperature that reduces the error on tracks that it was not fitted to is used.
            "calibration": CalibrationSpec(temperature=calibration.temperature) if calibration and helps else None,
            "domain": domain and DomainSpec(least_peak=domain.least_peak),
        }
    )


def summary_of(recipe: Recipe, n_labels: int) -> str:
    """Return the ``summary`` of a bundle: the network, its windows and the number of genres."""
    return f"{recipe.summary}, {recipe.windows.window_s:g} s windows, {n_labels} genres"
