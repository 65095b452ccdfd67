"""Commands for networks and bundles: ``export``, ``publish``, ``refresh-card``, ``quantise``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wholetrack_training.cli.options import DataOption, FinishedRun, load_for_recipe, load_tracks

BundleArgument = Annotated[
    Path, typer.Argument(help="Folder of a published bundle, such as models/wholetrack-crnn-gtzan/1.")
]


def export(run: FinishedRun, to: Annotated[Path, typer.Argument(help="The ONNX file to write.")]) -> None:
    """Export the network of a finished run to ONNX, without a bundle."""
    from wholetrack_training.export.to_onnx import export_onnx
    from wholetrack_training.fitting.runs import Run

    finished = Run(run)
    recipe, network = finished.recipe(), finished.network()
    to.write_bytes(export_onnx(network, frames=recipe.windows.frames, n_mels=recipe.features.n_mels))


def publish(
    run: Annotated[Path, typer.Argument(help="Folder of the run whose network is published.")],
    data: DataOption,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder with the records of all runs of the recipe; default: the figures of this run alone."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the system's.")] = None,
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "1",
    licence: Annotated[str, typer.Option(help="Licence of the network, as an SPDX expression.")] = "Apache-2.0",
    models: Annotated[Path, typer.Option(help="Folder of the bundles.")] = Path("models"),
) -> None:
    """Export the network of a run, check it, and write a bundle with its contract, golden outputs and model card."""
    from wholetrack_training.fitting.runs import Run
    from wholetrack_training.publishing import bundles
    from wholetrack_training.results.record_files import read_records
    from wholetrack_training.results.records import record_run

    finished = Run(run)
    recipe = finished.recipe()
    tracks = load_for_recipe(data, recipe)
    records = read_records(results) if results else [record_run(finished)]
    folder = bundles.publish(
        finished, records, tracks, name=name or recipe.system, version=version, licence=licence, models=models
    )
    typer.echo(str(folder))


def refresh(
    bundle: BundleArgument,
    results: Annotated[Path, typer.Option(help="Folder with the records of all runs of the bundle's recipe.")],
) -> None:
    """Update the figures and the text of a bundle from the records of its recipe; the network stays the same."""
    from wholetrack_training.publishing.refresh import refresh_card
    from wholetrack_training.results.record_files import read_records

    typer.echo(json.dumps(refresh_card(bundle, read_records(results)).metrics, indent=2))


def quantise(
    bundle: BundleArgument,
    data: DataOption,
    folds: Annotated[
        Path | None,
        typer.Option(
            help="Folder with bundles of the same recipe, evaluated on their test tracks; default: the bundle itself."
        ),
    ] = None,
) -> None:
    """Add an 8-bit network for CPUs to a bundle, unless it is less accurate."""
    from wholetrack.inference.bundle import CARD_FILE, load_bundle
    from wholetrack_training.publishing.quantisation import add_int8

    card = load_bundle(bundle).card
    tracks = load_tracks(data, card.audio, card.single_input.features)
    evaluated = [path.parent for path in sorted(folds.glob(f"*/*/{CARD_FILE}"))] if folds else [bundle]
    typer.echo(json.dumps(add_int8(bundle, evaluated, tracks).metrics, indent=2))
