"""The part of ``docs/RESULTS.md`` about models judged on audio, and the same figures for the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wholetrack_training.results.audio_figures import AudioFigures, read_figures
from wholetrack_training.results.domain_figures import DomainFigures
from wholetrack_training.results.failures import MIN_CONFIDENCE, Failure
from wholetrack_training.results.intervals import Share
from wholetrack_training.results.markdown import markdown_table
from wholetrack_training.systems.taxonomy import GTZAN

_INTRODUCTION = """\
Every recording is decoded and classified by the service's own pipeline. Recordings of GTZAN are classified by the
network that was trained on none of their artists, everything else by the published network. Brackets contain Wilson's
95 % interval. The teachers of version 2 were trained on recordings of many artists, which may include artists of GTZAN
and of the recordings beyond it; nothing else was taught with any audio of the fold that a network is judged on. Version
1 had no teachers: it learned from the labels of GTZAN only."""
_ROWS: tuple[tuple[str, Callable[[AudioFigures], Share]], ...] = (
    ("excerpts of one 3 s window, GTZAN's genres", lambda figures: figures.windows.right),
    ("the same, among all labels", lambda figures: figures.windows.all_labels),
    ("clips of 15 to 30 s by summed score, GTZAN's genres", lambda figures: figures.clips.right),
    ("the same, among all labels", lambda figures: figures.clips.all_labels),
    ("beyond GTZAN, recordings of its genres", lambda figures: figures.beyond.gtzan),
    ("the same, where listeners agree", lambda figures: figures.beyond.gtzan_agreed),
    ("beyond GTZAN, 15 groups, first genre", lambda figures: figures.beyond.groups_top1),
    ("the same, first three", lambda figures: figures.beyond.groups_top3),
    ("without biases: excerpts, GTZAN's genres", lambda figures: figures.windows_unbiased.right),
    ("without biases: clips, GTZAN's genres", lambda figures: figures.clips_unbiased.right),
    ("without biases: beyond GTZAN, recordings of its genres", lambda figures: figures.beyond_unbiased.gtzan),
    ("the same, where listeners agree", lambda figures: figures.beyond_unbiased.gtzan_agreed),
    ("without biases: beyond GTZAN, 15 groups, first genre", lambda figures: figures.beyond_unbiased.groups_top1),
    ("the same, first three", lambda figures: figures.beyond_unbiased.groups_top3),
)
_DOMAIN_ROWS: tuple[tuple[str, Callable[[DomainFigures], Share | None]], ...] = (
    ("clips of GTZAN", lambda domain: domain.clips),
    ("the same, without the label of their genre", lambda domain: domain.clips_left_out),
    ("beyond GTZAN, recordings of a genre of the model", lambda domain: domain.beyond),
    ("the same, without the label of their genre", lambda domain: domain.beyond_left_out),
    ("beyond GTZAN, recordings of no genre of the model", lambda domain: domain.beyond_unlabelled),
    ("free music of any genre, which may have taught the network", lambda domain: domain.free_music),
    ("noise, tones, hum, clicks and speech", lambda domain: domain.no_music),
    ("precision", lambda domain: domain.precision),
)


@dataclass(frozen=True, slots=True)
class JudgedModel:
    """A judged model, as far as the page shows it.

    Attributes:
        labels: Genres of the model.
        figures: Its figures.
    """

    labels: tuple[str, ...]
    figures: AudioFigures


def read_judged_models(folder: Path) -> dict[str, JudgedModel]:
    """Return the models that were judged, by label; none if there is no such folder.

    Raises:
        DataError: If a record is damaged.
    """
    return {path.stem: _read_model(path) for path in sorted(folder.glob("*.json"))}


def _read_model(path: Path) -> JudgedModel:
    figures = read_figures(path)
    return JudgedModel(tuple(json.loads(path.read_text())["labels"]), figures)


def audio_section(models: Mapping[str, JudgedModel]) -> list[str]:
    """Return the section on models judged on audio, side by side; nothing if there are none.

    Args:
        models: The models by label.
    """
    if not models:
        return []
    figures = [model.figures for model in models.values()]
    lines = ["## Judged on audio", "", *_INTRODUCTION.splitlines(), ""]
    lines += markdown_table(
        ("accuracy", *models), [(title, *(str(value(found)) for found in figures)) for title, value in _ROWS]
    )
    lines += ["", *_bias(models), "", "### Confidence", "", *_confidence(models), "", "### Known genres", ""]
    lines += [*_domain(models), ""]
    for label, model in models.items():
        lines += [f"### Confusion of {label}", "", *_confusion(model), ""]
    for label, model in models.items():
        lines += [f"### Worst answers of {label}", "", *_failures(model.figures.failures), ""]
    return lines


def figure_lines(figures: AudioFigures) -> list[str]:
    """Return the figures of one model as lines of text."""
    lines = [f"{title}: {value(figures)}" for title, value in _ROWS]
    lines += [f"  fold {k}: {share}" for k, share in figures.windows.by_fold.items()]
    error = figures.calibration
    low, high = error.by_chance
    lines += [
        f"biases: {_listed_biases(figures.bias) or 'none'}",
        f"temperature {figures.temperature:g}",
        f"calibration error beyond GTZAN: {error.error:.3f}, by chance [{low:.3f}, {high:.3f}], n = {error.n}",
    ]
    if domain := figures.domain:
        lines += [f"in domain (threshold {domain.threshold:g}): {domain.known or ''}"]
        lines += [f"  {title}: {share}" for title, value in _DOMAIN_ROWS if (share := value(domain)) is not None]
        lines += [f"  {kind}: {share}" for kind, share in domain.by_kind.items()]
    return lines


def _bias(models: Mapping[str, JudgedModel]) -> list[str]:
    lines = [
        f"- {label}: {_listed_biases(model.figures.bias)}" for label, model in models.items() if model.figures.bias
    ]
    if not lines:
        return []
    return [
        "A bias is added to the logits of each genre of a model that learned some genres from labels and others from "
        "the tags of other networks. The biases were fitted to the recordings of this table: for a recording of GTZAN "
        "without those of its fold, and for a recording beyond GTZAN without itself.",
        "",
        *lines,
    ]


def _listed_biases(bias: Mapping[str, float]) -> str:
    return ", ".join(f"{genre} {value:g}" for genre, value in bias.items())


def _confidence(models: Mapping[str, JudgedModel]) -> list[str]:
    rows = []
    for label, model in models.items():
        error = model.figures.calibration
        low, high = error.by_chance
        temperature = f"{model.figures.temperature:.2f}"
        rows.append(
            (
                label,
                str(error.n),
                temperature,
                f"{error.error:.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{model.figures.no_music_confidence:.2f}",
            )
        )
    return [
        "Expected calibration error of the confidence on all recordings beyond GTZAN that have a right answer, over "
        "five bins with equally many recordings. The temperature was fitted to the clips and to these recordings; "
        "the confidence of each of them was computed with the temperature fitted to all others. The column "
        '"by chance" contains 95 % of the errors that exact confidences would have. The last column is the largest '
        "confidence for noise, tones, hum, clicks and speech.",
        "",
        *markdown_table(("model", "recordings", "temperature", "error", "by chance", "largest, no music"), rows),
    ]


def _domain(models: Mapping[str, JudgedModel]) -> list[str]:
    shown = [(label, model.figures.domain) for label, model in models.items() if model.figures.domain]
    if not shown:
        return []
    rows = [(title, *(_cell(value(domain)) for _, domain in shown)) for title, value in _DOMAIN_ROWS]
    kinds = list(dict.fromkeys(kind for _, domain in shown for kind in domain.by_kind))
    rows += [(kind, *(_cell(domain.by_kind.get(kind)) for _, domain in shown)) for kind in kinds]
    return [
        "Share of the recordings that are `in_domain`. A genre that a model does not know is imitated by leaving the "
        "genre of a recording out of its labels; the network itself stays as it is. The threshold is the one that 90 "
        "% of the held-out clips reach, except for version 1, whose threshold 99 % of the tracks reach. Precision: "
        "of the recordings that are in domain, counting each clip and each recording beyond GTZAN once with the "
        "label of its genre and once without, the share that have it.",
        "",
        *markdown_table(("in domain", *(label for label, _ in shown)), rows),
    ]


def _confusion(model: JudgedModel) -> list[str]:
    found = model.figures
    excerpts = [(genre, *map(str, row)) for genre, row in zip(GTZAN, found.windows.confusion, strict=True)]
    groups = [(group, *map(str, counts)) for group, counts in found.groups.items()]
    return [
        "Excerpts of one window, in GTZAN's genres:",
        "",
        *markdown_table(("true \\ predicted", *GTZAN), excerpts),
        "",
        "Recordings beyond GTZAN, by group and first genre:",
        "",
        *markdown_table(("group \\ predicted", *model.labels), groups),
    ]


def _failures(found: Sequence[Failure]) -> list[str]:
    if not found:
        return [f"No clip and no recording beyond GTZAN is wrong with a confidence above {MIN_CONFIDENCE:g}."]
    rows = [
        (
            f"`{failure.name}`",
            failure.right,
            failure.answer,
            f"{failure.confidence:.2f}",
            failure.next_best,
            "not a label" if failure.rank_of_right is None else str(failure.rank_of_right),
            ", ".join(failure.tags),
        )
        for failure in found
    ]
    return [
        f"Wrong answers for clips and recordings beyond GTZAN with a confidence above {MIN_CONFIDENCE:g}:",
        "",
        *markdown_table(
            ("recording", "right", "answer", "confidence", "next best", "rank of the right one", "strongest tags"), rows
        ),
    ]


def _cell(share: Share | None) -> str:
    return "" if share is None else str(share)
