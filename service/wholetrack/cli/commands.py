"""The commands of ``wholetrack``."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from wholetrack import __version__
from wholetrack.api.schemas import WindowDetail
from wholetrack.cli.catalogue import catalogue
from wholetrack.cli.files import FileResult, find_recordings, predict_files, text_of
from wholetrack.cli.numba_cache import numba_cache
from wholetrack.cli.opening import fail, load_command_settings, load_settings, open_pipeline
from wholetrack.cli.options import HopOption, ModelOption, TaxonomyOption, TopKOption
from wholetrack.cli.packages import missing_packages
from wholetrack.cli.plot import PICTURE_SUFFIXES, plotted
from wholetrack.cli.render import Format, deliver, json_row, print_predictions, print_rows, rows_of
from wholetrack.cli.results_file import ResultsFile, ResultsFileError
from wholetrack.cli.settings_table import settings_rows
from wholetrack.cli.standard_streams import write_output
from wholetrack.cli.tag import tag
from wholetrack.cli.whole_file import UnwritableError, whole_file
from wholetrack.contracts import Detail, ModelCard, TrackPrediction
from wholetrack.deprecated_settings import warn_about_former_names
from wholetrack.logs import configure_logs, printable
from wholetrack.settings import Settings

_log = logging.getLogger(__name__)

app = typer.Typer(
    help="Predict the music genre of recordings, as an HTTP service or on the command line.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Joins the lines of each paragraph of a docstring.
    rich_markup_mode="markdown",
)


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        write_output(f"wholetrack {__version__}\n")
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free port.")] = None,
) -> None:
    """Serve predictions over HTTP."""
    from wholetrack.api.admission import Admission
    from wholetrack.api.app import create_app
    from wholetrack.server.draining import DrainingServer
    from wholetrack.server.orphans import reaping_orphans

    # After shutdown, uvicorn re-raises the signal that stopped it. A requested stop should exit with status 0.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    settings = load_settings(host=host, port=port)
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    warn_about_former_names(Settings)
    if os.environ.get("WEB_CONCURRENCY"):
        _log.warning("WEB_CONCURRENCY is ignored: the service is one process, which uses all CPUs")
    with open_pipeline(settings) as pipeline, reaping_orphans(pipeline.owns):
        admission = Admission(
            settings.max_requests,
            max_wait_s=settings.max_wait_s,
            expected_wait_s=pipeline.expected_wait_s,
        )
        DrainingServer(create_app(pipeline, settings, admission), settings, admission).run()


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Recordings, or folders of recordings.", show_default=False)],
    *,
    output_format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="Output format. A line for each recording: table, json or csv. A line for each verdict, section and "
            "window: rows-jsonl or rows-csv. A file: parquet, with a row for each recording, or rows-parquet.",
        ),
    ] = Format.TABLE,
    model: ModelOption = None,
    hop_s: HopOption = None,
    top_k: TopKOption = 3,
    taxonomy: TaxonomyOption = None,
    tags: Annotated[
        Detail | None,
        typer.Option(help="Tags in JSON; track by default if the model has tags.", show_default=False),
    ] = None,
    embedding: Annotated[
        Detail,
        typer.Option(help="Embedding in JSON, if the model has one. A Parquet file always has that of the track."),
    ] = Detail.NONE,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file for --format parquet, rows-parquet or json. One with JSON is continued: what it has is not "
            "predicted again.",
            show_default=False,
        ),
    ] = None,
    windows: Annotated[WindowDetail, typer.Option(help="Detail of the windows in JSON.")] = WindowDetail.FULL,
    plot: Annotated[
        Path | None, typer.Option(help="Also write the timeline of a single recording to this SVG or PNG file.")
    ] = None,
) -> None:
    """Predict the genre of recordings without a server.

    Exits with status 1 if a recording failed, or if a path cannot be read or has no recordings; the others are still
    predicted.
    """
    if output_format.is_file != (output is not None) and not (output and output_format is Format.JSON):
        fail("--format parquet or rows-parquet and --output FILE belong together: give both or neither")
    if output_format.is_file:
        _require_parquet()
    settings = load_command_settings()
    recordings, problems = find_recordings(files)
    for problem in problems:
        typer.echo(f"wholetrack: {problem}", err=True)
    if not recordings:
        raise typer.Exit(1)
    if plot and (plot.suffix.lower() not in PICTURE_SUFFIXES or len(recordings) > 1):
        fail("--plot needs the name of an SVG or PNG file, and a single recording")
    with open_pipeline(settings) as pipeline:
        # Reject options that are invalid for every recording once, instead of once per file.
        served = pipeline.model(model)
        served.check_available()
        served.grid(hop_s)
        if output_format is Format.PARQUET:
            embedding = Detail.TRACK if served.card.outputs.embedding else Detail.NONE
        served.keep(tags=tags, embedding=embedding)
        labels = served.genres(taxonomy)
        top_k = min(top_k, len(labels))
        predict = partial(
            predict_files,
            pipeline,
            recordings,
            model=model,
            hop_s=hop_s,
            taxonomy=taxonomy,
            tags=tags,
            embedding=embedding,
            settings=settings,
        )
        if output is not None and output_format is Format.JSON:
            line = partial(json_row, top_k=top_k, detail=windows)
            facts = {
                "model.name": served.card.name,
                "model.version": served.card.version,
                "model.hop_s": float(served.grid(hop_s).hop),
                "model.labels": list(labels),
            }
            with _continued(output, facts) as file, closing(predict(is_known=file.knows)) as predicted:
                all_succeeded = _append(predicted, file, line, n_files=len(recordings))
        else:
            with closing(predict()) as predicted:
                results = plotted(predicted, plot) if plot else predicted
                if output is None:
                    all_succeeded = print_predictions(
                        results,
                        output_format,
                        files=recordings,
                        labels=labels,
                        top_k=top_k,
                        detail=windows,
                    )
                else:
                    write = _write_library if output_format is Format.PARQUET else partial(_write_rows, labels=labels)
                    with _whole_file(output) as binary:
                        all_succeeded = write(results, binary, served.card, n_files=len(recordings))
    if problems or not all_succeeded:
        raise typer.Exit(1)


@contextmanager
def _continued(path: Path, facts: dict[str, Any]) -> Iterator[ResultsFile]:
    """Open a file of predictions; errors end the command."""
    try:
        with ResultsFile(path, facts) as results:
            if results.n_earlier:
                typer.echo(f"wholetrack: {results.n_earlier:,} predictions of earlier runs", err=True)
            yield results
    except ResultsFileError as error:
        fail(printable(str(error)))
    except OSError as error:
        fail(f"cannot write {printable(text_of(path))}: {error.strerror}")


def _append(
    results: Iterable[FileResult],
    file: ResultsFile,
    line: Callable[[FileResult, TrackPrediction], str],
    *,
    n_files: int,
) -> bool:
    """Append predictions to a file, and return whether all succeeded."""

    def write(result: FileResult, prediction: TrackPrediction) -> None:
        assert result.content is not None
        file.append(result.content, text_of(result.path), line(result, prediction))

    def repeat(result: FileResult) -> None:
        assert result.content is not None
        file.repeat(result.content, text_of(result.path))

    return deliver(results, write, n_files=n_files, repeat=repeat)


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    try:
        with whole_file(path) as file:
            yield file
    except UnwritableError as error:
        fail(printable(str(error)))


def _write_library(results: Iterable[FileResult], file: IO[bytes], card: ModelCard, *, n_files: int) -> bool:
    """Write predictions to a Parquet file, a row for each, and return whether all succeeded."""
    from wholetrack.cli.library import LibraryWriter

    with LibraryWriter(file, card) as library:
        return deliver(results, lambda result, found: library.add(result.path, found), n_files=n_files)


def _write_rows(
    results: Iterable[FileResult], file: IO[bytes], card: ModelCard, *, labels: Sequence[str], n_files: int
) -> bool:
    """Write verdicts, sections and windows to a Parquet file and return whether all predictions succeeded."""
    from wholetrack.api.parquet import RowsWriter

    facts = {"model": card.name, "version": card.version}
    with RowsWriter(file, labels, with_file=True, metadata=facts) as writer:
        return deliver(results, lambda result, found: writer.add(rows_of(result, found)), n_files=n_files)


app.command()(catalogue)
app.command()(tag)


@app.command()
def similar(
    song: Annotated[Path, typer.Argument(help="A recording.", show_default=False)],
    library: Annotated[
        Path, typer.Argument(help="A file of `predict --format parquet`, or a folder.", show_default=False)
    ],
    limit: Annotated[int, typer.Option(min=1, help="Number of recordings to list.")] = 10,
) -> None:
    """List the recordings of a library that are most similar to a recording.

    The similarity is the cosine of the angle between the embeddings, from -1 to 1. The recording is predicted with the
    model that the library was written with.
    """
    _require_parquet()
    from wholetrack.cli.library import Library, LibraryError

    settings = load_command_settings()
    try:
        known = Library.read(library)
        with open_pipeline(settings) as pipeline:
            found = pipeline.predict(
                song, model=known.model, embedding=Detail.TRACK, max_duration_s=settings.max_duration_s
            )
            if found.embedding is None or found.embedding.track is None:
                fail(f"{printable(text_of(song))} is silent, so that it has no embedding")
            nearest = known.nearest(found.embedding.track, limit=limit)
    except LibraryError as error:
        fail(printable(str(error)))
    except OSError as error:
        fail(f"{printable(text_of(song))}: {error.strerror}")
    rows = [(printable(file), genre, f"{similarity:.4f}") for file, genre, similarity in nearest]
    print_rows(("file", "genre", "similarity"), rows)


def _require_parquet() -> None:
    if missing_packages("pyarrow"):
        fail("pyarrow is not installed; Parquet files need the extra 'parquet': pip install 'wholetrack[parquet]'")


@app.command()
def models() -> None:
    """List the models that would be served, and the device of each.

    Exits with status 1 if a model cannot run.
    """
    with open_pipeline(load_command_settings()) as pipeline:
        print_rows(
            ("model", "version", "device", "precision", "window", "genres", "summary"),
            [
                (
                    f"{name} (default)" if name == pipeline.default_model else name,
                    served.card.version,
                    served.engine.device if served.engine.available else "unavailable",
                    served.engine.precision,
                    f"{served.card.windows.window_s:g} s every {served.card.windows.hop_s:g} s",
                    str(len(served.card.labels)),
                    served.card.summary,
                )
                for name, served in sorted(pipeline.models.items())
            ],
        )
        if not all(served.engine.available for served in pipeline.models.values()):
            raise typer.Exit(1)


@app.command()
def key(name: Annotated[str, typer.Argument(help="Name of the key in the logs.")]) -> None:
    """Create an API key.

    Prints the key for its owner to standard error, and the entry for the key file to standard output.
    """
    from wholetrack.api.keys import new_key

    secret, digest = new_key()
    typer.echo(f"# {secret} is the key, for its owner only; add the entry below to WHOLETRACK_API_KEYS_FILE", err=True)
    write_output(f'[{name}]\nsha256 = "{digest}"\n')


@app.command()
def settings() -> None:
    """Print all settings with their values, the source of each value, and their meaning."""
    print_rows(("variable", "value", "source", "meaning"), settings_rows(load_command_settings()))


@app.command()
def health() -> None:
    """Check whether the service on this machine is ready; exit with status 1 if it is not."""
    from wholetrack import healthcheck

    settings = load_command_settings()
    raise typer.Exit(healthcheck.main(settings.probe_port or settings.port))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A recording.", show_default=False)],
    model: ModelOption = None,
) -> None:
    """Compare the prediction of a recording with a reference implementation.

    The reference implementation works like the published systems: ffmpeg decodes the whole file, pydub reads the
    result, librosa computes the features of each window on its own, and the network classifies one window at a time.
    Exits with status 1 if any probability differs by more than 0.005.
    """
    if missing := missing_packages("librosa", "pydub", "audioop"):
        fail(f"{missing[0]} is not installed; verify needs the extra 'verify': pip install 'wholetrack[verify]'")
    settings = load_command_settings()
    with open_pipeline(settings) as pipeline:
        try:
            with numba_cache(settings.temp_dir):
                from wholetrack.cli.verify import compare

                comparison = compare(
                    pipeline, file, model=model, max_duration_s=settings.max_duration_s, temp_dir=settings.temp_dir
                )
        except OSError as error:
            fail(f"{printable(text_of(Path(error.filename or file)))}: {error.strerror}")
    write_output(f"{comparison.text()}\n")
    if not comparison.agrees:
        raise typer.Exit(1)
