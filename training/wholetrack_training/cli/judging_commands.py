"""Commands that judge a model on audio, and publish wholetrack-crnn 2: ``judge``, ``publish-two-towers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JUDGED = Path("docs/judged")

JudgedOption = Annotated[Path, typer.Option(help="Folder of the records of judged models.")]


def judge(
    networks: Annotated[
        Path,
        typer.Argument(
            help="Folder with the checkpoints fold-0.pt (all data) to fold-3.pt, or the bundles fold-1/1 to fold-3/1."
        ),
    ],
    audio: Annotated[Path, typer.Option(help="Folder with gtzan-short, gtzan and beyond.")],
    *,
    label: Annotated[str, typer.Option(help="Label of the record, such as wholetrack-crnn-2.")],
    published: Annotated[
        Path | None, typer.Option(help="Folder of the bundle that was trained on all data; default: that of fold 0.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Table of GTZAN's tracks; default: tracks.csv next to the audio folder.")
    ] = None,
    free_music: Annotated[Path | None, typer.Option(help="Folder of free music; default: none.")] = None,
    to: JudgedOption = JUDGED,
) -> None:
    """Judge a model on recordings of artists that its networks were not trained on, through the service's pipeline.

    The outputs and the figures are recorded. Checkpoints are exported first, unless that was done before.
    """
    from wholetrack_training.publishing.judged_bundles import judged_bundles
    from wholetrack_training.results.audio_figures import as_document, audio_figures
    from wholetrack_training.results.audio_page import figure_lines
    from wholetrack_training.results.judged_files import write_judged
    from wholetrack_training.results.judging_run import AudioFolders, judge_model

    folders = AudioFolders(audio, table or audio.parent / "tracks.csv", free_music)
    judged = judge_model(judged_bundles(networks, published), folders, label=label)
    figures = audio_figures(judged)
    path = write_judged(judged, as_document(figures), to)
    typer.echo("\n".join(figure_lines(figures)))
    typer.echo(str(path))


def publish_two_towers(
    checkpoint: Annotated[Path, typer.Argument(help="Weights of the network that was trained on all data.")],
    record: Annotated[Path, typer.Option(help="Record of the judged model (JSON), for calibration and figures.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the model.")] = "wholetrack-crnn",
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "2",
    licence: Annotated[str, typer.Option(help="Licence of the network, as an SPDX expression.")] = "Apache-2.0",
    models: Annotated[Path, typer.Option(help="Folder of the bundles.")] = Path("models"),
) -> None:
    """Calibrate wholetrack-crnn 2 with the outputs of its folds, and write a bundle with a model card."""
    from wholetrack_training.publishing.calibrated_facts import calibrated_facts
    from wholetrack_training.publishing.two_towers import publish_two_towers as publish
    from wholetrack_training.results.judged_files import read_judged

    facts = calibrated_facts(read_judged(record), name=name, version=version, licence=licence)
    typer.echo(str(publish(checkpoint, facts, models)))


def refresh_judged(
    records: Annotated[list[Path], typer.Argument(help="Records of judged models (JSON).")],
) -> None:
    """Compute the figures of judged models again from their recorded outputs."""
    from wholetrack_training.results.audio_figures import as_document, audio_figures
    from wholetrack_training.results.audio_page import figure_lines
    from wholetrack_training.results.judged_files import read_judged, write_judged

    for path in records:
        judged = read_judged(path)
        figures = audio_figures(judged)
        write_judged(judged, as_document(figures), path.parent)
        typer.echo("\n".join((judged.label, *figure_lines(figures))))
