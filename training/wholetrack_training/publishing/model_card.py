"""``CARD.md``: what a model is, what it learned from, how good it is, and where it must not be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

import numpy as np

from wholetrack.contracts import FeatureSpec, Int8Spec, MinMax, ModelCard, RelativeToMax, Unchanged
from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.records import Record

_PROTOCOLS = {
    "random_split": "Random split by track, as the published systems report",
    "artist_filtered": "Artist-filtered folds: no artist is on two sides (Sturm, arXiv:1306.1461)",
}
_ROWS = (
    ("window_accuracy", "windows: accuracy"),
    ("window_macro_f1", "windows: macro F1"),
    ("track_accuracy_summed", "tracks: accuracy by summed score"),
    ("track_accuracy_voted", "tracks: accuracy by majority vote"),
    ("track_macro_f1_summed", "tracks: macro F1 by summed score"),
    ("track_macro_f1_voted", "tracks: macro F1 by majority vote"),
    ("top2", "tracks: truth among the first two"),
    ("top3", "tracks: truth among the first three"),
    ("ece", "expected calibration error of the leading share"),
)


_INT8_TITLE = "## In integers"
_OF_GTZAN = " GTZAN, which it learned from, is a research data set of commercial recordings without a licence."
_AGE_OF_GTZAN = (
    "It learned them from clips recorded around the year 2000 from radio, CD and tape, without folk, electronic dance "
    "music, or music of most of the world. "
)


def card_text(card: ModelCard, records: Sequence[Record]) -> str:
    """The card of a bundle as Markdown, every number from the runs' own records.

    Args:
        card: the bundle's contract.
        records: of all runs of its recipe.
    """
    features, windows, trained = card.features, card.windows, card.trained_on
    grid = (
        f"{features.frames_per_second} frames a second" if features.frames_per_second else f"hop {features.hop_length}"
    )
    lines = [
        f"# {card.name} {card.version}",
        "",
        f"{card.summary}: {', '.join(card.labels)}.",
        "",
        f"- Input: {windows.window_s:g} s windows every {windows.hop_s:g} s, {windows.frames} frames of "
        f"{features.n_mels} mel bands ({card.audio.sample_rate} Hz, n_fft {features.n_fft}, {grid}, "
        f"{_level(features)}).",
        f"- Network: {card.metrics['parameters']:,} parameters, {card.metrics['mflop_per_window']:g} MFLOP a window "
        "(a multiplication and an addition are two).",
        f"- Trained on: {trained['data']}, {_tracks(trained)}, seed {trained['seed']}; {trained['minutes']:g} "
        f"minutes, the weights of epoch {trained['best_epoch']} of {trained['epochs']}{_teachers(trained)}.",
        "- ONNX against PyTorch on real windows: probabilities differ by at most "
        f"{card.metrics['export_max_difference']:.1e}.",
        f"- Licence of the network: {card.licence}.{_OF_GTZAN if _learned_from_gtzan(trained) else ''}",
        "",
        "## How good it is",
        "",
    ]
    for protocol, title in _PROTOCOLS.items():
        if protocol in card.metrics:
            lines += _table(title, card.metrics[protocol])
    if set(_PROTOCOLS) <= set(card.metrics):
        lines += [
            "The second protocol is the honest one: a random split lets a model recognise artists and albums.",
            "",
        ]
    judged, words = _most_honest(records)
    lines += [
        f"## Confusion of {sum(record.figures['n_tracks'] for record in judged)} tracks, {words}",
        "",
        *_confusion(card.labels, np.sum([record.figures["confusion"] for record in judged], axis=0).tolist()),
        "",
        "## Where not to trust it",
        "",
        f"It names one of {len(card.labels)} genres for anything, music or not. "
        + (_AGE_OF_GTZAN if _learned_from_gtzan(trained) else "")
        + "Genres that it never met come out as their nearest neighbour among those it knows. "
        + " ".join((_confidence(card), *_domain(card))),
        "",
    ]
    text = "\n".join(lines)
    return with_int8(text, card.int8) if card.int8 else text


def with_int8(text: str, spec: Int8Spec) -> str:
    """A bundle's card with what its network in integers costs, in place of what was said of an earlier one."""
    between = spec.metrics["between"]
    lines = [
        _INT8_TITLE,
        "",
        f"`WHOLETRACK_CPU_PRECISION=int8` lets the CPU compute in integers. On {between['tracks']} tracks, each heard "
        f"by networks that never learned from it, both name the same genre for {100 * between['same_answer']:.1f} %; "
        f"the probabilities of a window differ by {between['mean_difference']:.4f} on average and by "
        f"{between['largest_difference']:.2f} at most.",
        "",
        "| | float32 | int8 |",
        "|---|---|---|",
    ]
    rows = dict(_ROWS)
    lines += [
        f"| {rows[name]} | {value:.3f} | {spec.metrics['int8'][name]:.3f} |"
        for name, value in spec.metrics["float32"].items()
    ]
    return text.split(_INT8_TITLE, maxsplit=1)[0].rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"


def _learned_from_gtzan(trained: Mapping[str, Any]) -> bool:
    return str(trained["data"]).startswith("gtzan")


def _teachers(trained: Mapping[str, Any]) -> str:
    if not trained.get("teachers"):
        return ""
    return f", with the mean answer of {trained['teachers']} networks, alike but for their seed, as part of the target"


def _tracks(trained: Mapping[str, Any]) -> str:
    if trained["protocol"] == Protocol.ALL:
        return f"all {trained['tracks']} tracks, after its recipe was chosen on the artist-filtered folds"
    validation = f" ({trained['validation_tracks']} more to stop early by)" if trained["validation_tracks"] else ""
    return f"{trained['tracks']} tracks{validation}, {trained['protocol']} split {trained['part']}"


def _most_honest(records: Sequence[Record]) -> tuple[list[Record], str]:
    if folds := [record for record in records if record.protocol == Protocol.ARTIST_FILTERED]:
        return folds, "each by a network that never heard its artist"
    return list(records), "each by a network that never heard it"


def _domain(card: ModelCard) -> Iterator[str]:
    if domain := card.metrics.get("domain"):
        yield (
            f"`in_domain` is false where the highest probabilities of the windows are below {domain['least_peak']:.2f} "
            "on average: the network was taught to be undecided about noise, tones, hum, clicks and speech. Of music "
            f"by artists that it never heard, {100 * domain['outside']:.1f} % are taken for something else."
        )


def _confidence(card: ModelCard) -> str:
    calibration = card.metrics.get("calibration")
    if calibration is None:
        return "`confidence` is the leading share of the summed score; it is not calibrated."
    if card.calibration is None:
        return (
            "`confidence` is the leading share of the summed score: on artists that it never heard its expected "
            f"calibration error is {calibration['ece_before']:.3f}, and would be {calibration['ece_after']:.3f} with a "
            "temperature."
        )
    return (
        f"`confidence` is calibrated (temperature {calibration['temperature']:.2f}): on artists that it never heard "
        f"its expected calibration error is {calibration['ece_after']:.3f}, that of the bare leading share "
        f"{calibration['ece_before']:.3f}."
    )


def _level(features: FeatureSpec) -> str:
    unit = "dB" if features.log == "db" else "natural logarithm"
    match features.normalisation:
        case RelativeToMax(range_db=range_db):
            return f"{unit} relative to the window's maximum, {range_db:g} dB deep"
        case MinMax(range_db=range_db, low=low, high=high):
            return f"{unit}, the window's range of at most {range_db:g} dB spread over {low:g} to {high:g}"
        case Unchanged():
            return f"{unit}, not normalised"
        case _:
            assert_never(features.normalisation)


def _table(title: str, summary: dict[str, Any]) -> list[str]:
    lines = [f"{title} ({summary['runs']} run{'s' if summary['runs'] > 1 else ''}, {summary['tracks']} test tracks):"]
    lines += ["", "| | mean | SD |", "|---|---|---|"]
    for name, words in _ROWS:
        deviation = summary.get(f"{name}_sd")
        lines.append(f"| {words} | {summary[name]:.3f} | {'-' if deviation is None else f'{deviation:.3f}'} |")
    return [*lines, ""]


def _confusion(labels: tuple[str, ...], confusion: list[list[int]]) -> list[str]:
    header = "| true \\ predicted | " + " | ".join(labels) + " |"
    rows = [f"| {label} | " + " | ".join(map(str, row)) + " |" for label, row in zip(labels, confusion, strict=True)]
    return [header, "|---" * (len(labels) + 1) + "|", *rows]
