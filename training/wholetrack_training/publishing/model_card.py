"""``CARD.md``: what a model is, what it was trained on, how accurate it is, and what its limitations are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

import numpy as np

from wholetrack.contracts import Affine, FeatureSpec, Int8Spec, MinMax, ModelCard, RelativeToMax, Unchanged
from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.markdown import markdown_table
from wholetrack_training.results.records import Record

CARD_TEXT_FILE = "CARD.md"

_PROTOCOLS = {
    "random_split": "Random splits by track, as in the publications of the other systems",
    "artist_filtered": "Artist-filtered folds: no artist is on more than one side of a split (Sturm, arXiv:1306.1461)",
}
_ROWS = (
    ("window_accuracy", "windows: accuracy"),
    ("window_macro_f1", "windows: macro F1"),
    ("track_accuracy_summed", "tracks: accuracy by summed score"),
    ("track_accuracy_voted", "tracks: accuracy by majority vote"),
    ("track_macro_f1_summed", "tracks: macro F1 by summed score"),
    ("track_macro_f1_voted", "tracks: macro F1 by majority vote"),
    ("top2", "tracks: true genre among the first two"),
    ("top3", "tracks: true genre among the first three"),
    ("ece", "expected calibration error of the leading share"),
)
_INT8_TITLE = "## 8-bit integers"


def card_text(card: ModelCard, records: Sequence[Record]) -> str:
    """Return the card of a bundle as Markdown; all figures come from the contract and the records.

    Args:
        card: The bundle's contract.
        records: All runs of its recipe.
    """
    lines = [
        f"# {card.name} {card.version}",
        "",
        f"{card.summary}: {', '.join(card.labels)}.",
        "",
        *_facts(card),
        "",
        "## Accuracy",
        "",
    ]
    for protocol, title in _PROTOCOLS.items():
        if protocol in card.metrics:
            lines += _figures(title, card.metrics[protocol])
    if set(_PROTOCOLS) <= set(card.metrics):
        lines += [
            "The artist-filtered figures are the better estimate for new music: with random splits a model can "
            "recognise artists and albums.",
            "",
        ]
    lines += [*_confusion(card, records), "", "## Limitations", ""]
    lines += [*(f"- {sentence}" for sentence in _limitations(card)), ""]
    text = "\n".join(lines)
    return with_int8(text, card.int8) if card.int8 else text


def with_int8(text: str, spec: Int8Spec) -> str:
    """Return a card with a section on the 8-bit network, which replaces an earlier one."""
    between = spec.metrics["between"]
    lines = [
        _INT8_TITLE,
        "",
        "With `WHOLETRACK_CPU_PRECISION=int8` the CPU computes with 8-bit integers. "
        f"On {between['tracks']} tracks, each classified by networks that were not trained on it, float32 and int8 "
        f"give the same genre for {100 * between['same_answer']:.1f} %. The probabilities of a window differ by "
        f"{between['mean_difference']:.4f} on average and by {between['largest_difference']:.2f} at most.",
        "",
    ]
    rows = dict(_ROWS)
    lines += markdown_table(
        ("", "float32", "int8"),
        [
            (rows[name], f"{value:.3f}", f"{spec.metrics['int8'][name]:.3f}")
            for name, value in spec.metrics["float32"].items()
        ],
    )
    return text.split(_INT8_TITLE, maxsplit=1)[0].rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"


def _facts(card: ModelCard) -> list[str]:
    entry, windows, trained = card.single_input, card.windows, card.trained_on
    features = entry.features
    grid = (
        f"{features.frames_per_second} frames per second"
        if features.frames_per_second
        else f"hop length {features.hop_length}"
    )
    unlicensed = " GTZAN, the training data, is a research data set of commercial recordings and has no licence."
    return [
        f"- Input: windows of {windows.window_s:g} s every {windows.hop_s:g} s, {entry.frames} frames of "
        f"{features.n_mels} mel bands ({card.audio.sample_rate} Hz, n_fft {features.n_fft}, {grid}, "
        f"{_level(features)}).",
        f"- Network: {card.metrics['parameters']:,} parameters, {card.metrics['mflop_per_window']:g} MFLOP per window "
        "(a multiplication and an addition count as two).",
        f"- Training: {trained['data']}, {_tracks(trained)}, seed {trained['seed']}; {trained['minutes']:g} minutes, "
        f"weights of epoch {trained['best_epoch']} of {trained['epochs']}{_teachers(trained)}.",
        "- Export: on real windows the probabilities of ONNX and PyTorch differ by at most "
        f"{card.metrics['export_max_difference']:.1e}.",
        f"- Licence of the network: {card.licence}.{unlicensed if _trained_on_gtzan(trained) else ''}",
    ]


def _level(features: FeatureSpec) -> str:
    unit = {"db": "dB", "ln": "natural logarithm", "log10": "logarithm to base 10"}[features.log]
    match features.normalisation:
        case RelativeToMax(range_db=range_db):
            return f"{unit} relative to the window's maximum, range {range_db:g} dB"
        case MinMax(range_db=range_db, low=low, high=high):
            return f"{unit}, the window's range of at most {range_db:g} dB scaled to {low:g} to {high:g}"
        case Affine(add=add, divide_by=divide_by):
            return f"{unit}, (level + {add:g}) / {divide_by:g}"
        case Unchanged():
            return f"{unit}, not normalised"
        case _:
            assert_never(features.normalisation)


def _tracks(trained: Mapping[str, Any]) -> str:
    if trained["protocol"] == Protocol.ALL:
        return f"all {trained['tracks']} tracks with a recipe chosen on the artist-filtered folds"
    validation = f" ({trained['validation_tracks']} more for early stopping)" if trained["validation_tracks"] else ""
    return f"{trained['tracks']} tracks{validation}, {trained['protocol']} split {trained['part']}"


def _teachers(trained: Mapping[str, Any]) -> str:
    if not trained.get("teachers"):
        return ""
    return f", distilled from {trained['teachers']} networks of the same recipe with other seeds"


def _trained_on_gtzan(trained: Mapping[str, Any]) -> bool:
    return str(trained["data"]).startswith("gtzan")


def _figures(title: str, summary: Mapping[str, Any]) -> list[str]:
    runs = f"{summary['runs']} run{'s' if summary['runs'] > 1 else ''}"
    rows = [
        (words, f"{summary[name]:.3f}", f"{summary[f'{name}_sd']:.3f}" if f"{name}_sd" in summary else "-")
        for name, words in _ROWS
    ]
    return [f"{title} ({runs}, {summary['tracks']} test tracks):", "", *markdown_table(("", "mean", "SD"), rows), ""]


def _confusion(card: ModelCard, records: Sequence[Record]) -> list[str]:
    folds = [record for record in records if record.protocol == Protocol.ARTIST_FILTERED]
    chosen, unseen = (folds, "its artist") if folds else (records, "it")
    n_tracks = sum(record.figures.n_tracks for record in chosen)
    counts = np.sum([record.figures.confusion for record in chosen], axis=0).tolist()
    rows = [(label, *map(str, row)) for label, row in zip(card.labels, counts, strict=True)]
    return [
        "## Confusion matrix",
        "",
        f"{n_tracks} tracks, each classified by a network that was not trained on {unseen}:",
        "",
        *markdown_table(("true \\ predicted", *card.labels), rows),
    ]


def _limitations(card: ModelCard) -> Iterator[str]:
    yield f"The model assigns one of {len(card.labels)} genres to any recording, even if it is not music."
    if _trained_on_gtzan(card.trained_on):
        yield (
            "The training clips were recorded around the year 2000 from radio, CD and tape. They include no folk, no "
            "electronic dance music and no music from most of the world."
        )
    yield "Music of any other genre is assigned to the most similar genre of the training data."
    yield _confidence(card)
    if domain := card.metrics.get("domain"):
        yield (
            "`in_domain` is false if the mean of the windows' highest probabilities is below "
            f"{domain['least_peak']:.2f}: the network was trained to be undecided about noise, tones, hum, clicks and "
            f"speech. It is also false for {100 * domain['outside']:.1f} % of the music by artists that are not in the "
            "training data."
        )


def _confidence(card: ModelCard) -> str:
    calibration = card.metrics.get("calibration")
    if calibration is None:
        return "`confidence` is the leading share of the summed score and is not calibrated."
    before, after = f"{calibration['ece_before']:.3f}", f"{calibration['ece_after']:.3f}"
    if card.calibration is None:
        return (
            "`confidence` is the leading share of the summed score. On artists that are not in the training data its "
            f"expected calibration error is {before}; a temperature would change it to {after}."
        )
    return (
        f"`confidence` is calibrated with a temperature of {calibration['temperature']:.2f}. On artists that are not "
        f"in the training data its expected calibration error is {after}; that of the uncalibrated share is {before}."
    )
