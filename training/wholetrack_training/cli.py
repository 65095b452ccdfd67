"""The command ``wholetrack-train``: from recordings to a published model, each step a function of its arguments."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer

from wholetrack.contracts import ModelCard
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.errors import StartupError
from wholetrack.inference.bundle import CARD_FILE, load_bundle
from wholetrack_training.data.dataset import load_folder
from wholetrack_training.data.splits import Protocol, divide, read_split
from wholetrack_training.data.tracks import DataError, TrackSet, load_precomputed
from wholetrack_training.export.onnx_export import export_onnx
from wholetrack_training.export.recurrent import ExportError
from wholetrack_training.fitting.evaluation import Evaluation
from wholetrack_training.fitting.fitting import DifferentRunError
from wholetrack_training.fitting.runs import Run, RunSpec, write_json
from wholetrack_training.publishing.publish import publish as publish_run
from wholetrack_training.publishing.publish import restate
from wholetrack_training.results.records import Record, read_records
from wholetrack_training.results.report import (
    experiments_text,
    is_published,
    learns,
    read_results,
    read_robustness,
    results_text,
)
from wholetrack_training.results.robustness import FoldModels
from wholetrack_training.results.robustness import measure as measure_robustness
from wholetrack_training.systems import SYSTEMS
from wholetrack_training.systems.campana_crnn import CampanaCrnn
from wholetrack_training.systems.recipe import Recipe, Source
from wholetrack_training.systems.wholetrack_crnn import WholetrackCrnn

app = typer.Typer(
    help="From a folder of music to a published model.", no_args_is_help=True, pretty_exceptions_enable=False
)

_TABLE = "tracks.csv"
RESULTS = Path("docs/results")
PICTURES = "pictures"

Data = Annotated[
    Path,
    typer.Option(
        help="A folder of recordings per genre, or an .npz of precomputed spectrograms with tracks.csv beside it."
    ),
]


@app.callback()
def _configure(threads: Annotated[int | None, typer.Option(min=1, help="Processors to use.")] = None) -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("wholetrack_training").setLevel(logging.INFO)
    if threads:
        torch.set_num_threads(threads)


@app.command()
def build(
    data: Data,
    system: Annotated[str, typer.Option(help=f"Whose features: {', '.join(SYSTEMS)}.")] = WholetrackCrnn.system,
) -> None:
    """Hear all recordings of a folder and keep their features, so that a training begins at once.

    May be stopped at any moment and goes on where it was.
    """
    try:
        tracks = _load(data, _system(system).of(_source(data)))
    except (DataError, StartupError, ValueError) as error:
        _fail(str(error))
    duplicates = sum(track.duplicate_of is not None for track in tracks.tracks)
    typer.echo(f"{len(tracks)} tracks of {len(tracks.labels)} genres, {duplicates} duplicates")


@app.command()
def clips(
    music: Annotated[Path, typer.Argument(help="A folder of recordings per genre.")],
    to: Annotated[Path, typer.Argument(help="The folder of clips to write.")],
    *,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a clip.")] = 30.0,
    level_db: Annotated[float, typer.Option(max=0, help="Level of every clip, in dB of full scale.")] = -20.0,
    most: Annotated[int | None, typer.Option(min=1, help="Clips of one recording; all if not given.")] = None,
) -> None:
    """Cut whole recordings into clips of one length and level, as GTZAN was made."""
    from wholetrack_training.data.clips import Cutting, cut_folder

    try:
        made = sum(1 for _ in cut_folder(music, to, Cutting(seconds, level_db, most), find_ffmpeg()))
    except (DataError, StartupError) as error:
        _fail(str(error))
    if not made:
        _fail(f"{music} holds no recording of {seconds:g} s that is not silent")
    typer.echo(f"{made} clips")


@app.command()
def split(
    data: Data,
    to: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    protocol: Annotated[Protocol, typer.Option(help="How tracks are divided.")] = Protocol.RANDOM,
    part: Annotated[int, typer.Option(help="Number of the random split, or the fold to judge by.")] = 1,
) -> None:
    """Write down who learns from which tracks and is judged by which, to be changed by hand or given to others."""
    try:
        tracks = _load(data, WholetrackCrnn.of(_source(data)))
        write_json(to, asdict(divide(tracks, protocol, part)))
    except (DataError, StartupError, ValueError) as error:
        _fail(str(error))


@app.command()
def fit(
    run: Annotated[Path, typer.Argument(help="Folder of the run; a run that was interrupted goes on.")],
    data: Data,
    *,
    protocol: Annotated[Protocol, typer.Option(help="How tracks are divided.")] = Protocol.RANDOM,
    part: Annotated[int, typer.Option(help="Number of the random split, or the fold to judge by.")] = 1,
    system: Annotated[str, typer.Option(help=f"Which system to train: {', '.join(SYSTEMS)}.")] = WholetrackCrnn.system,
    window_s: Annotated[
        float | None, typer.Option(min=0.5, max=30, help="Length of a window, in place of the system's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    given: Annotated[
        Path | None,
        typer.Option("--split", help="A file with the names of the tracks on each side, as `split` writes."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value of the recipe, such as schedule.epochs=2; may be repeated."),
    ] = None,
) -> None:
    """Train one network and judge it by tracks that it never saw, if its split has any."""
    try:
        recipe = _system(system).of(_source(data), window_s=window_s).changed(dict(map(_change, changes or [])))
        tracks = _load(data, recipe)
        if given is not None:
            protocol = Protocol.GIVEN
        sides = divide(tracks, protocol, part) if given is None else read_split(given, tracks)
        if recipe.schedule.keep == "last":
            sides = sides.without_validation()
        spec = RunSpec(data.name, protocol, part, seed, tracks.labels, sides)
        judged = Run(run).fit(tracks, spec, recipe)
    except (DataError, DifferentRunError, StartupError, ValueError) as error:
        _fail(str(error))
    _show(judged, run)


@app.command()
def evaluate(run: Annotated[Path, typer.Argument(help="Folder of a finished run.")], data: Data) -> None:
    """Judge a finished run once more by the test tracks of its split."""
    finished = Run(run)
    try:
        judged = finished.evaluate(_load(data, finished.recipe()))
    except (DataError, StartupError) as error:
        _fail(str(error))
    _show(judged, run)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    to: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
) -> None:
    """Export a finished run's network alone, without a bundle."""
    finished = Run(run)
    try:
        recipe, network = finished.recipe(), finished.network()
        to.write_bytes(export_onnx(network, frames=recipe.windows.frames, n_mels=recipe.features.n_mels))
    except (DataError, ExportError) as error:
        _fail(str(error))


@app.command()
def record(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    label: Annotated[str | None, typer.Option(help="Of the records; system and window length if not given.")] = None,
    to: Annotated[Path, typer.Option(help="Folder of all records.")] = RESULTS,
) -> None:
    """Keep how runs were judged, for reports and cards, without their weights."""
    for folder in runs:
        try:
            found = Record.of(Run(folder))
        except (DataError, ExportError) as error:
            _fail(str(error))
        typer.echo(str(found.write(to / (label or found.label))))


@app.command()
def baseline(
    data: Data,
    *,
    protocol: Annotated[Protocol, typer.Option(help="How tracks are divided.")] = Protocol.RANDOM,
    part: Annotated[int, typer.Option(help="Number of the random split, or the fold to judge by.")] = 1,
    to: Annotated[Path, typer.Option(help="Folder of all records.")] = RESULTS,
) -> None:
    """Train a support vector machine on statistics of timbre, for comparison, and record how it is judged."""
    from wholetrack_training.results.baseline import fit_baseline

    try:
        recipe = CampanaCrnn.of(_source(data))
        tracks = _load(data, recipe)
        spec = RunSpec(data.name, protocol, part, 0, tracks.labels, divide(tracks, protocol, part))
        found = fit_baseline(tracks, spec, recipe)
    except (DataError, StartupError, ValueError) as error:
        _fail(str(error))
    typer.echo(str(found.write(to / found.label)))


@app.command()
def report(
    results: Annotated[Path, typer.Option(help="Folder of all records.")] = RESULTS,
    to: Annotated[Path, typer.Option(help="Folder of the pages.")] = RESULTS.parent,
) -> None:
    """Write RESULTS.md and EXPERIMENTS.md with their pictures from the records."""
    from wholetrack_training.results.plots import draw_confusion, draw_learning

    found = read_results(results)
    text = results_text(found, read_robustness(to / "robustness"), pictures=PICTURES)
    (to / "RESULTS.md").write_text(text)
    (to / "EXPERIMENTS.md").write_text(experiments_text(found))
    for label, records in found.items():
        if is_published(label):
            draw_confusion(records, to / PICTURES / f"{label}-confusion.svg")
            if learns(records):
                draw_learning(records, to / PICTURES / f"{label}-learning.svg")


@app.command()
def robustness(
    models: Annotated[Path, typer.Argument(help="Folder with the bundles of all artist-filtered folds.")],
    data: Data,
    to: Annotated[Path | None, typer.Option(help="The JSON file to write.")] = None,
) -> None:
    """Judge the clips that come as audio, re-encoded, filtered, compressed, transposed and stretched."""
    try:
        tracks = load_precomputed(data, data.with_name(_TABLE))
        with FoldModels.serving(models) as folds:
            measured = measure_robustness(folds, tracks, data.parent, find_ffmpeg())
    except (DataError, StartupError) as error:
        _fail(str(error))
    if to:
        to.parent.mkdir(parents=True, exist_ok=True)
        write_json(to, measured.as_dict())
    typer.echo(json.dumps(measured.as_dict(), indent=2))


@app.command()
def filters(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    music: Annotated[Path, typer.Argument(help="A folder of recordings, searched to any depth.")],
    to: Annotated[Path, typer.Argument(help="The folder to write.")],
    moments: Annotated[int, typer.Option(min=1, help="How many to join for each filter.")] = 6,
) -> None:
    """Make a sound of what excites each convolution filter most, and a page to listen to them."""
    from wholetrack_training.results.filter_sounds import loudest_moments, write_sounds

    finished = Run(run)
    try:
        decoder = FfmpegDecoder(find_ffmpeg())
        recordings = sorted(file for file in music.rglob("*") if file.is_file())
        found = loudest_moments(finished.network(), finished.recipe(), recordings, decoder, moments=moments)
        page = write_sounds(found, to, decoder)
    except (DataError, StartupError) as error:
        _fail(str(error))
    typer.echo(str(page))


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="Folder of the run whose network is to be served.")],
    data: Data,
    results: Annotated[
        Path | None, typer.Option(help="Folder with the records of all runs whose figures the card states.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model; the system's if not given.")] = None,
    version: Annotated[str, typer.Option(help="Of the bundle.")] = "1",
    licence: Annotated[str, typer.Option(help="Of the network, as an SPDX expression.")] = "Apache-2.0",
    models: Annotated[Path, typer.Option(help="Folder of the bundles.")] = Path("models"),
) -> None:
    """Export a run, check it, and publish it as a bundle with its contract, golden and card."""
    served = Run(run)
    try:
        recipe = served.recipe()
        tracks = _load(data, recipe)
        records = read_records(results) if results else [Record.of(served)]
        folder = publish_run(
            served, records, tracks, name=name or recipe.system, version=version, licence=licence, models=models
        )
    except (DataError, ExportError, StartupError) as error:
        _fail(str(error))
    typer.echo(str(folder))


@app.command("restate")
def restate_bundle(
    bundle: Annotated[Path, typer.Argument(help="Folder of a published bundle, such as models/wholetrack-crnn/1.")],
    results: Annotated[Path, typer.Option(help="Folder with the records of all runs whose figures the card states.")],
) -> None:
    """State on a bundle's card how good its recipe is by all runs recorded by now; its network stays."""
    try:
        card = restate(bundle, read_records(results))
    except (DataError, ExportError, StartupError) as error:
        _fail(str(error))
    typer.echo(json.dumps(card.metrics, indent=2))


@app.command("quantise")
def quantise_bundle(
    bundle: Annotated[Path, typer.Argument(help="Folder of a published bundle, such as models/wholetrack-crnn/1.")],
    data: Data,
    folds: Annotated[
        Path | None,
        typer.Option(
            help="Folder with bundles of the same recipe to judge by; the bundle's own unseen tracks if none."
        ),
    ] = None,
) -> None:
    """Put the network in 8-bit integers into a bundle, for CPUs, if it names as many genres rightly."""
    from wholetrack_training.publishing.quantisation import add_int8

    try:
        card = load_bundle(bundle).card
        tracks = _load(data, card)
        judges = [path.parent for path in sorted(folds.glob(f"*/*/{CARD_FILE}"))] if folds else [bundle]
        spec = add_int8(bundle, judges, tracks)
    except (DataError, ExportError, StartupError, ValueError) as error:
        _fail(str(error))
    typer.echo(json.dumps(spec.metrics, indent=2))


def _show(judged: Evaluation | None, run: Path) -> None:
    document = judged.as_dict() if judged else {}
    figures = {name: value for name, value in document.items() if isinstance(value, int | float)}
    typer.echo(json.dumps({**figures, "run": str(run)}))


def _source(data: Path) -> Source:
    return Source.AUDIO if data.is_dir() else Source.PRECOMPUTED


def _load(data: Path, heard: Recipe | ModelCard) -> TrackSet:
    """The data set by the features of a recipe or of a bundle, which learns nothing more."""
    if data.is_dir():
        decoder, cache = FfmpegDecoder(find_ffmpeg()), data.with_name(data.resolve().name + ".features")
        return load_folder(
            data,
            audio=heard.audio,
            features=heard.features,
            decoder=decoder,
            cache=cache,
            versions=heard.sound_versions if isinstance(heard, Recipe) else (),
        )
    if not data.is_file():
        raise DataError(f"{data} is neither a folder of genres nor an .npz file")
    return load_precomputed(data, data.with_name(_TABLE))


def _system(name: str) -> type[Recipe]:
    if name not in SYSTEMS:
        raise ValueError(f"there is no system {name}; choose one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def _change(assignment: str) -> tuple[str, Any]:
    """``schedule.epochs=2`` as a name and a JSON value; what is no JSON is a word."""
    name, separator, text = assignment.partition("=")
    if not separator:
        raise ValueError(f"--set {assignment} is not of the form name=value")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, text


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"wholetrack-train: {sentence}", err=True)
    raise typer.Exit(1)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
