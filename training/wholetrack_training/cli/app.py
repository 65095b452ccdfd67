"""The commands of ``wholetrack-train``, in the order of the steps from recordings to a published model.

The modules of the commands import PyTorch, librosa and other heavy packages only inside their functions. The help works
without them, and a command fails only if it needs a package that is missing.
"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from wholetrack_training.cli import (
    bundle_commands,
    data_commands,
    head_commands,
    import_commands,
    judging_commands,
    result_commands,
    run_commands,
    teaching_commands,
)
from wholetrack_training.cli.errors import ReportingGroup

app = typer.Typer(
    cls=ReportingGroup,
    help="Train, evaluate and publish models, from a folder of music to a bundle for the service.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _configure(threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads.")] = None) -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("wholetrack_training").setLevel(logging.INFO)
    if threads:
        import torch

        torch.set_num_threads(threads)


for _command in (
    data_commands.build,
    data_commands.clips,
    data_commands.split,
    run_commands.fit,
    run_commands.evaluate,
    bundle_commands.export,
    result_commands.record,
    result_commands.baseline,
    result_commands.report,
    result_commands.robustness,
    result_commands.filters,
    bundle_commands.publish,
    teaching_commands.collect,
    teaching_commands.teach_music,
    teaching_commands.teach_folds,
    judging_commands.judge,
    head_commands.head,
):
    app.command()(_command)
app.command("refresh-card")(bundle_commands.refresh)
app.command("restate", hidden=True, deprecated=True)(bundle_commands.refresh)
app.command("quantise")(bundle_commands.quantise)
app.command("refresh-judged")(judging_commands.refresh_judged)
app.command("publish-two-towers")(judging_commands.publish_two_towers)
app.add_typer(import_commands.app, name="import")


def main() -> None:
    """Run the command line."""
    app()
