"""The command ``wholetrack catalogue``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wholetrack.cli.opening import fail, load_command_settings
from wholetrack.cli.options import HopOption, ModelOption, TaxonomyOption, TopKOption
from wholetrack.cli.packages import missing_packages
from wholetrack.cli.standard_streams import write_output
from wholetrack.logs import printable

if TYPE_CHECKING:
    from wholetrack.catalogue.run import Run

FILES_FAILED = 3
"""Exit status of a run that has finished, but some files could not be predicted."""
RESUMABLE = 75
"""Exit status of a run that a store or a device has ended: ``EX_TEMPFAIL``, as in sysexits.h."""


def catalogue(
    source: Annotated[
        str,
        typer.Argument(help="Folder of recordings, as a path or a URL such as s3://bucket/prefix.", show_default=False),
    ],
    *,
    out: Annotated[
        str,
        typer.Option(
            help="Folder for the results, as a path or a URL. A run that ended early is continued.", show_default=False
        ),
    ],
    model: ModelOption = None,
    hop_s: HopOption = None,
    top_k: TopKOption = 3,
    taxonomy: TaxonomyOption = None,
    partition_files: Annotated[
        int, typer.Option(min=1, help="Number of files whose results are written together, and repeated together.")
    ] = 256,
    storage_option: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE, an argument of the fsspec file system of the stores; VALUE may be JSON. May be repeated.",
            show_default=False,
        ),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Remove the results of an earlier run first.")] = False,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Run in a Ray cluster: that of RAY_ADDRESS, or else one on this machine that ends with the run.",
        ),
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Run in the Ray cluster at this address.", show_default=False)
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            min=1, help="With Ray: number of actors; by default all that there is room for.", show_default=False
        ),
    ] = None,
    cpus_per_actor: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With Ray: CPUs of each actor; by default those of the smallest node, at most 8.",
            show_default=False,
        ),
    ] = None,
    gpus_per_actor: Annotated[
        float, typer.Option(min=0.0, help="With Ray: GPUs of each actor, or the part of one.")
    ] = 0.0,
    networks: Annotated[
        int,
        typer.Option(
            min=0, help="With Ray: number of further actors that run the network for the others, and get the GPUs."
        ),
    ] = 0,
) -> None:
    """Predict all recordings of a folder or an object store, and write Parquet files.

    Results are in OUT/predictions, and files that could not be predicted in OUT/failures. Progress is printed to
    standard error, and a summary as JSON to standard output. Run the same command again to continue a run that ended
    early.

    Exit status: 0 if all files were predicted, 3 if some could not be, 75 if a store or a device has failed and the
    run can be continued, 130 if it was interrupted and can be continued, 1 if it cannot begin.
    """
    if missing := missing_packages("pyarrow", "fsspec"):
        fail(
            f"{missing[0]} is not installed; catalogue needs the extra 'catalogue': pip install 'wholetrack[catalogue]'"
        )
    if (ray or ray_address) and missing_packages("ray"):
        fail("ray is not installed; --ray needs the extra 'ray': pip install 'wholetrack[catalogue,ray]'")
    from wholetrack.catalogue.cluster import Cluster
    from wholetrack.catalogue.errors import CatalogueError, ResumableError
    from wholetrack.catalogue.run import run_catalogue
    from wholetrack.catalogue.workplace import CatalogueOptions

    options = CatalogueOptions(
        source=source,
        target=out,
        storage_options=_storage_options(storage_option or []),
        model=model,
        hop_s=hop_s,
        taxonomy=taxonomy,
        top_k=top_k,
        partition_files=partition_files,
    )
    cluster = Cluster(ray_address, actors, cpus_per_actor, gpus_per_actor, networks) if ray or ray_address else None
    settings = load_command_settings()
    try:
        run = run_catalogue(options, settings, restart=restart, cluster=cluster, on_end=_report)
    except CatalogueError as error:
        fail(printable(str(error)))
    except ResumableError as error:
        typer.echo(f"wholetrack: {printable(str(error))}", err=True)
        raise typer.Exit(RESUMABLE) from error
    except OSError as error:
        fail(printable(str(error)))
    if run.progress.failed:
        raise typer.Exit(FILES_FAILED)


def _report(run: Run) -> None:
    """Print the summary of a run that ends, and how to continue it if it has not finished."""
    summary = run.summary()
    write_output(json.dumps(summary) + "\n")
    if not summary["finished"]:
        counts = f"{summary['files'] - summary['remaining']:,} of {summary['files']:,} files are done"
        typer.echo(f"wholetrack: {counts}; run the same command again to continue", err=True)


def _storage_options(texts: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of file systems that are given as ``KEY=VALUE``."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            fail(f"--storage-option {printable(text)} is not KEY=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options
