"""``docs/RESULTS.md`` and ``docs/EXPERIMENTS.md`` from the records of runs; nothing in them is typed in by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wholetrack_training.data.splits import Protocol
from wholetrack_training.results.baseline import NAME as BASELINE
from wholetrack_training.results.records import METRICS, Record, read_records, summarise
from wholetrack_training.results.robustness import CLEAN
from wholetrack_training.systems import SYSTEMS
from wholetrack_training.systems.recipe import Source

# Each author's own figures, on a random split by track of GTZAN's audio (see the seeds' tables).
_AUTHORS = {
    "hilsdorf-crnn-3s": "67.3 % of windows, tracks 12.2 points more (10 runs)",
    "hilsdorf-crnn-29s": "55.8 % (30 s; 10 runs)",
    "campana-crnn-29s": "window F1 0.638 (30 s)",
    "campana-crnn-15s": "window F1 0.627",
    "campana-crnn-10s": "window F1 0.724",
    "campana-crnn-5s": "window F1 0.755",
    "campana-crnn-3s": "window F1 0.782, track F1 0.847, top-2 95.6 %, top-3 98.9 %",
    "campana-crnn-1s": "window F1 0.768, track F1 0.892",
    "timbre-svm-3s": "window F1 0.713, track F1 0.791",
    "guimaraes-cnn-1.5s": "82 % of tracks by majority vote",
    "deepsound-crnn-29s": "67 % of tracks",
}
_PROTOCOLS = {
    Protocol.RANDOM: "Random split by track: 80 % to learn from, 10 % to stop by, 10 % to judge by, as the authors do",
    Protocol.ARTIST_FILTERED: "Artist-filtered folds: three, no artist is in two, validation by other artists again",
}
_COLUMNS = (
    ("windows", "window_accuracy"),
    ("windows F1", "window_macro_f1"),
    ("tracks, sum", "track_accuracy_summed"),
    ("tracks, vote", "track_accuracy_voted"),
    ("F1, sum", "track_macro_f1_summed"),
    ("F1, vote", "track_macro_f1_voted"),
    ("top-2", "top2"),
    ("top-3", "top3"),
    ("ECE", "ece"),
)
Results = Mapping[str, list[Record]]
"""Records by label."""


def read_results(folder: Path) -> Results:
    """All records below ``folder``, by label: by system, then by length of window."""
    return {path.name: read_records(path) for path in sorted(folder.iterdir(), key=_in_order) if path.is_dir()}


def _in_order(path: Path) -> list[tuple[float, str]]:
    """Names as people sort them, 3s before 10s."""
    parts = re.split(r"([0-9]+(?:\.[0-9]+)?)", path.name)
    return [(float(part), "") if part[:1].isdigit() else (0.0, part) for part in parts]


def is_published(label: str) -> bool:
    """Whether a label is of a system as it is or of the baseline, not of an experiment."""
    return any(re.fullmatch(rf"{name}-[0-9.]+s", label) for name in (*SYSTEMS, BASELINE))


def learns(records: Sequence[Record]) -> bool:
    """Whether the records have a course to draw, as those of a network."""
    return any(record.training["history"] for record in records)


def read_robustness(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """What ``wholetrack-train robustness`` wrote, by label."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def results_text(results: Results, robustness: Mapping[str, Mapping[str, Any]], *, pictures: str) -> str:
    """``RESULTS.md``: every system by both protocols, beside what its authors say.

    Args:
        results: of all systems; labels of experiments are left out.
        robustness: as :func:`read_robustness` gives it.
        pictures: where the pictures lie, relative to the page.
    """
    systems = {label: records for label, records in results.items() if is_published(label)}
    lines = [
        "# Results",
        "",
        "Written by `make results` from the records in [results](results), which `wholetrack-train record` takes from",
        "finished runs. Every figure is on tracks that the network never saw, mean (standard deviation) over runs.",
        "",
        "The input is `gtzan-mel.npz`, 128 mel bands at 12.9 frames a second: less than the authors had, so no row is",
        "an exact replication. MFLOP count a multiplication and an addition as two; minutes are of one processor,",
        "where two trainings ran side by side. A window of deepsound-crnn is one step of its belief. wholetrack-crnn",
        "stops after a set number of epochs and learns from the validation tracks too.",
        "",
    ]
    for protocol, title in _PROTOCOLS.items():
        lines += [f"## {title}", "", *_table(systems, protocol), ""]
    lines += ["## Beside the authors", "", *_beside_authors(systems), ""]
    lines += ["## Divide and conquer", "", *_divide_and_conquer(systems), ""]
    for label, measured in robustness.items():
        lines += [f"## What an answer of {label} survives", "", *_robustness(measured), ""]
    lines += ["## Confusion and learning", ""]
    for label, records in systems.items():
        lines += [f"### {label}", "", f"![confusion]({pictures}/{label}-confusion.svg)", ""]
        if learns(records):
            lines += [f"![learning curves]({pictures}/{label}-learning.svg)", ""]
    return "\n".join(lines)


def experiments_text(results: Results) -> str:
    """``EXPERIMENTS.md``: one line per group of runs of our own system, what was changed, and what it did."""
    rows = []
    default = SYSTEMS["wholetrack-crnn"].of(Source.PRECOMPUTED).as_dict()
    for label, records in results.items():
        if not records or records[0].system != "wholetrack-crnn":
            continue
        changes = ", ".join(f"`{name}={value}`" for name, value in differences(default, records[0].recipe))
        summary = summarise(records)
        cells = [
            f"{_mean(summary.get(METRICS[protocol]), figure)}"
            for protocol in (Protocol.ARTIST_FILTERED, Protocol.RANDOM)
            for figure in ("window_accuracy", "track_accuracy_summed")
        ]
        runs = " + ".join(
            str(summary.get(METRICS[p], {}).get("runs", 0)) for p in (Protocol.ARTIST_FILTERED, Protocol.RANDOM)
        )
        rows.append([label, changes or "the recipe as it is", *cells, runs, records[0].date])
    header = (
        "label",
        "changed with `--set`",
        "windows, folds",
        "tracks, folds",
        "windows, random",
        "tracks, random",
        "runs",
        "date",
    )
    return "\n".join(
        [
            "# Experiments with wholetrack-crnn",
            "",
            "Written by `make results`. Each line is a group of runs of `wholetrack-train fit`, judged on the",
            "artist-filtered folds, by which a recipe is chosen, and on random splits, by which it never is.",
            "",
            *markdown_table(header, rows),
            "",
        ]
    )


def differences(default: Mapping[str, Any], recipe: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Where a recipe differs from the default, by dotted name."""
    found: list[tuple[str, Any]] = []
    for name in sorted({*default, *recipe}):
        before, after, full = default.get(name), recipe.get(name), f"{path}{name}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{full}.")
        elif before != after:
            found.append((full, after))
    return found


def _table(systems: Results, protocol: Protocol) -> list[str]:
    rows = []
    for label, records in systems.items():
        chosen = [record for record in records if record.protocol == protocol]
        if not chosen:
            continue
        summary = summarise(chosen)[METRICS[protocol]]
        minutes = sum(record.training["minutes"] for record in chosen) / len(chosen)
        rows.append(
            [
                label,
                str(summary["runs"]),
                *(_mean(summary, figure) for _, figure in _COLUMNS),
                f"{chosen[0].parameters:,}",
                f"{chosen[0].mflop_per_window:g}",
                f"{minutes:.0f}",
            ]
        )
    header = ("system", "runs", *(title for title, _ in _COLUMNS), "parameters", "MFLOP", "minutes")
    return markdown_table(header, rows)


def _beside_authors(systems: Results) -> list[str]:
    rows = []
    for label, words in _AUTHORS.items():
        summary = summarise(systems.get(label, [])).get(METRICS[Protocol.RANDOM])
        if summary is None:
            continue
        ours = ", ".join(
            f"{title} {summary[figure]:.3f}"
            for title, figure in (
                ("windows", "window_accuracy"),
                ("window F1", "window_macro_f1"),
                ("tracks by sum", "track_accuracy_summed"),
                ("by vote", "track_accuracy_voted"),
                ("track F1 by vote", "track_macro_f1_voted"),
            )
        )
        rows.append([label, words, ours])
    return markdown_table(("system", "authors, from audio", "here, random split"), rows)


def _divide_and_conquer(systems: Results) -> list[str]:
    rows = []
    for label, records in systems.items():
        summaries, row = summarise(records), [label]
        for protocol in (Protocol.RANDOM, Protocol.ARTIST_FILTERED):
            if summary := summaries.get(METRICS[protocol]):
                windows, tracks = summary["window_accuracy"], summary["track_accuracy_summed"]
                row += [f"{100 * windows:.1f}", f"{100 * tracks:.1f}", f"{100 * (tracks - windows):+.1f}"]
            else:
                row += [""] * 3
        rows.append(row)
    words = "Of 100 windows, and of 100 tracks by summed score, so many are named rightly, by random split and by fold."
    header = ("system", "windows", "tracks", "gained", "windows, folds", "tracks, folds", "gained, folds")
    return [words, "", *markdown_table(header, rows)]


def _robustness(measured: Mapping[str, Any]) -> list[str]:
    accuracy = measured["accuracy"]
    rows = [
        [title, f"{100 * share:.0f} %", "" if title == CLEAN else f"{100 * (share - accuracy[CLEAN]):+.0f}"]
        for title, share in accuracy.items()
    ]
    words = (
        f"{measured['clips']} real clips, each through the whole service by the network of the fold that never heard "
        f"its artist ({measured['date']}). One clip is {100 / measured['clips']:.0f} points."
    )
    return [words, "", *markdown_table(("the clips", "right", "points"), rows)]


def _mean(summary: Mapping[str, Any] | None, figure: str) -> str:
    if summary is None:
        return ""
    deviation = summary.get(f"{figure}_sd")
    return f"{summary[figure]:.3f}" + ("" if deviation is None else f" ({deviation:.3f})")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
