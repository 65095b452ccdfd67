"""Commands for results: ``record``, ``baseline``, ``report``, ``robustness``, ``filters``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wholetrack_training.cli.options import (
    RESULTS,
    DataOption,
    FinishedRun,
    PartOption,
    ProtocolOption,
    RecordsOption,
    load_for_recipe,
    load_precomputed_tracks,
    source_of,
)
from wholetrack_training.data.splits import Protocol, split_tracks
from wholetrack_training.files import write_json

_PICTURES = "pictures"


def record(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    label: Annotated[str | None, typer.Option(help="Label of the records; default: system and window length.")] = None,
    to: RecordsOption = RESULTS,
) -> None:
    """Save the figures of runs, without their networks, for reports and model cards."""
    from wholetrack_training.fitting.runs import Run
    from wholetrack_training.results.record_files import write_record
    from wholetrack_training.results.records import record_run

    for folder in runs:
        found = record_run(Run(folder))
        typer.echo(str(write_record(found, to / (label or found.label))))


def baseline(
    data: DataOption,
    *,
    protocol: ProtocolOption = Protocol.RANDOM,
    part: PartOption = 1,
    to: RecordsOption = RESULTS,
) -> None:
    """Train a support vector machine on timbre statistics, for comparison, and save its figures."""
    from wholetrack_training.fitting.runs import RunSpec
    from wholetrack_training.results.baseline import fit_baseline
    from wholetrack_training.results.record_files import write_record
    from wholetrack_training.systems.campana_crnn import CampanaCrnn

    recipe = CampanaCrnn.of(source_of(data))
    tracks = load_for_recipe(data, recipe)
    spec = RunSpec(data.name, protocol, part, 0, tracks.labels, split_tracks(tracks, protocol, part))
    found = fit_baseline(tracks, spec, recipe)
    typer.echo(str(write_record(found, to / found.label)))


def report(
    results: RecordsOption = RESULTS,
    to: Annotated[Path, typer.Option(help="Folder for the pages.")] = RESULTS.parent,
) -> None:
    """Generate RESULTS.md and EXPERIMENTS.md and their plots from the records."""
    from wholetrack_training.results.audio_page import read_judged_models
    from wholetrack_training.results.collection import has_epochs, is_published, read_results, read_robustness
    from wholetrack_training.results.experiments_page import experiments_page
    from wholetrack_training.results.head_records import read_head_records
    from wholetrack_training.results.plots import draw_confusion, draw_learning
    from wholetrack_training.results.results_page import results_page

    found = read_results(results)
    judged = read_judged_models(to / "judged")
    heads = read_head_records(to / "heads")
    text = results_page(found, read_robustness(to / "robustness"), judged, heads, pictures=_PICTURES)
    (to / "RESULTS.md").write_text(text)
    (to / "EXPERIMENTS.md").write_text(experiments_page(found))
    for label, records in found.items():
        if is_published(label):
            draw_confusion(records, to / _PICTURES / f"{label}-confusion.svg")
            if has_epochs(records):
                draw_learning(records, to / _PICTURES / f"{label}-learning.svg")


def robustness(
    models: Annotated[Path, typer.Argument(help="Folder with the bundles of all artist-filtered folds.")],
    data: DataOption,
    to: Annotated[Path | None, typer.Option(help="The JSON file to write.")] = None,
) -> None:
    """Measure the accuracy on clips that are re-encoded, filtered, compressed, transposed or stretched."""
    from wholetrack.decoding.ffmpeg import find_ffmpeg
    from wholetrack_training.results.robustness import FoldModels, measure

    tracks = load_precomputed_tracks(data)
    with FoldModels.loaded_from(models) as folds:
        measured = measure(folds, tracks, data.parent, find_ffmpeg()).as_dict()
    if to:
        to.parent.mkdir(parents=True, exist_ok=True)
        write_json(to, measured)
    typer.echo(json.dumps(measured, indent=2))


def filters(
    run: FinishedRun,
    music: Annotated[Path, typer.Argument(help="A folder of recordings, searched recursively.")],
    to: Annotated[Path, typer.Argument(help="Folder for the sounds and the page.")],
    moments: Annotated[int, typer.Option(min=1, help="Number of moments per filter.")] = 6,
) -> None:
    """For each convolution filter, write a sound of the moments that activate it most, and a page to play them all."""
    from wholetrack.decoding.decoder import FfmpegDecoder
    from wholetrack.decoding.ffmpeg import find_ffmpeg
    from wholetrack_training.fitting.runs import Run
    from wholetrack_training.results.filter_sounds import strongest_moments, write_sounds

    finished = Run(run)
    decoder = FfmpegDecoder(find_ffmpeg())
    recordings = sorted(file for file in music.rglob("*") if file.is_file())
    found = strongest_moments(finished.network(), finished.recipe(), recordings, decoder, moments=moments)
    typer.echo(str(write_sounds(found, to, decoder)))
