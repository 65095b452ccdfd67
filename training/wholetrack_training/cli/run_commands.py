"""Commands for training runs: ``fit``, ``evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wholetrack_training.cli.options import (
    DataOption,
    FinishedRun,
    PartOption,
    ProtocolOption,
    SystemOption,
    load_for_recipe,
    source_of,
)
from wholetrack_training.data.splits import Protocol, read_split, split_tracks
from wholetrack_training.errors import RecipeError
from wholetrack_training.systems.names import DEFAULT

if TYPE_CHECKING:
    from wholetrack_training.fitting.evaluation import Evaluation


def fit(
    run: Annotated[Path, typer.Argument(help="Folder of the run; an interrupted run is continued.")],
    data: DataOption,
    *,
    protocol: ProtocolOption = Protocol.RANDOM,
    part: PartOption = 1,
    system: SystemOption = DEFAULT,
    window_s: Annotated[
        float | None, typer.Option(min=0.5, max=30, help="Length of a window; default: the system's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    given: Annotated[
        Path | None,
        typer.Option("--split", help="A file with the names of the tracks on each side, as written by `split`."),
    ] = None,
    teachers: Annotated[
        list[Path] | None,
        typer.Option(
            "--teacher",
            help="Folder of a published network whose predictions are part of the target, by the share "
            "schedule.distillation; may be repeated. It must not have seen the test tracks.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the recipe, such as schedule.epochs=2; may be repeated."),
    ] = None,
) -> None:
    """Train a network and evaluate it on the test tracks, if the split has any."""
    from wholetrack.inference.bundle import load_bundle
    from wholetrack_training.fitting.bundle_teacher import BundleTeacher
    from wholetrack_training.fitting.runs import Run, RunSpec
    from wholetrack_training.systems.registry import system_named

    recipe = system_named(system).of(source_of(data), window_s=window_s).changed(dict(map(_change, changes or [])))
    tracks = load_for_recipe(data, recipe)
    if given is not None:
        protocol, sides = Protocol.GIVEN, read_split(given, tracks)
    else:
        sides = split_tracks(tracks, protocol, part)
    if recipe.schedule.keep == "last":
        sides = sides.without_validation()
    published = [
        BundleTeacher(load_bundle(folder), recipe, labels=tracks.labels, test=sides.test) for folder in teachers or []
    ]
    taught_by = tuple(teacher.sha256 for teacher in published)
    spec = RunSpec(data.name, protocol, part, seed, tracks.labels, sides, taught_by)
    _print_figures(Run(run).fit(tracks, spec, recipe, published=published), run)


def evaluate(run: FinishedRun, data: DataOption) -> None:
    """Evaluate the network of a finished run again on the test tracks of its split."""
    from wholetrack_training.fitting.runs import Run

    finished = Run(run)
    _print_figures(finished.evaluate(load_for_recipe(data, finished.recipe())), run)


def _change(assignment: str) -> tuple[str, Any]:
    """Return the name and the value of ``name=value``; the value is JSON, or a string if it is not valid JSON."""
    name, separator, text = assignment.partition("=")
    if not separator:
        raise RecipeError(f"--set {assignment} does not have the form name=value")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, text


def _print_figures(found: Evaluation | None, run: Path) -> None:
    document = found.as_dict() if found else {}
    figures = {name: value for name, value in document.items() if isinstance(value, int | float)}
    typer.echo(json.dumps({**figures, "run": str(run)}))
