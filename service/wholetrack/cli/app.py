"""The verbs of the command ``wholetrack``."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from wholetrack import __version__
from wholetrack.cli.render import Format, Heard, print_predictions, print_rows
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.logs import configure_logs
from wholetrack.pipeline import Pipeline
from wholetrack.settings import PREFIX, Settings, settings_with_sources
from wholetrack.startup import build_pipeline

app = typer.Typer(
    help="What genre is this recording? A REST service and its command line.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

# What folders are searched for; a file that is named is tried whatever it is called.
_AUDIO_SUFFIXES = frozenset(
    {".aac", ".aif", ".aifc", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".w64"}
    | {".webm", ".wma"}
)


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        typer.echo(f"wholetrack {__version__}")
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 for any free one.")] = None,
) -> None:
    """Serve predictions by HTTP."""
    from wholetrack.api.app import create_app
    from wholetrack.server.draining import DrainingServer

    # uvicorn raises the signal again that it was stopped by: a service that was asked to stop ends with 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = _settings(host=host, port=port)
    configure_logs(level=settings.log_level, form=settings.log_format)
    with _pipeline(settings) as pipeline:
        DrainingServer(create_app(pipeline, settings), settings).run()


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Recordings, and folders of recordings.", show_default=False)],
    form: Annotated[
        Format, typer.Option("--format", help="A table, JSON with one object a line, or CSV.")
    ] = Format.TABLE,
    model: Annotated[str | None, typer.Option(help="Model to ask; the default one if not given.")] = None,
    hop_s: Annotated[float | None, typer.Option(help="Distance between window starts, in seconds.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many genres to rank.")] = 3,
) -> None:
    """Name the genre of recordings, without a server.

    Exits with 1 if a recording could not be heard; the others are answered all the same.
    """
    settings = _settings()
    configure_logs(level="warning", form="text")
    paths = list(_recordings(files))
    with _pipeline(settings) as pipeline:
        # Options that no recording could be heard with are refused once, not for every file.
        pipeline.model(model).grid(hop_s)

        def hear(path: Path) -> Heard:
            began = time.monotonic()
            try:
                found = pipeline.predict(path, model=model, hop_s=hop_s, max_duration_s=settings.max_duration_s)
            except ServiceError as error:
                return Heard(path, began, error)
            except OSError as error:
                unreadable = f"The file cannot be read: {error.strerror}."
                return Heard(path, began, ServiceError(ErrorKind.UNDECODABLE_AUDIO, unreadable))
            return Heard(path, began, found)

        with ThreadPoolExecutor(settings.tracks_at_once) as threads:
            all_heard = print_predictions(threads.map(hear, paths), form, n_files=len(paths), top_k=top_k)
    if not all_heard:
        raise typer.Exit(1)


@app.command()
def models() -> None:
    """List the models that would be served, with the device of each."""
    configure_logs(level="warning", form="text")
    with _pipeline(_settings()) as pipeline:
        print_rows(
            ("model", "version", "device", "precision", "window", "genres", "summary"),
            [
                (
                    f"{name} (default)" if name == pipeline.default_model else name,
                    served.card.version,
                    served.engine.device,
                    served.engine.precision,
                    f"{served.card.windows.window_s:g} s every {served.card.windows.hop_s:g} s",
                    str(len(served.card.labels)),
                    served.card.summary,
                )
                for name, served in sorted(pipeline.models.items())
            ],
        )


@app.command()
def key(name: Annotated[str, typer.Argument(help="What logs shall call its holder.")]) -> None:
    """Make an API key: the key itself for its holder, and the table for the service's file of keys."""
    from wholetrack.api.keys import new_key

    secret, digest = new_key()
    typer.echo(f"# {secret} is the key, for its holder alone; the rest is for WHOLETRACK_API_KEYS_FILE", err=True)
    typer.echo(f'[{name}]\nsha256 = "{digest}"')


@app.command()
def settings() -> None:
    """Print every setting, its value, where that comes from, and what it means."""
    print_rows(("variable", "value", "source", "meaning"), settings_with_sources(_settings()))


@app.command()
def health() -> None:
    """Ask the service on this machine whether it is ready; exits with 1 if it is not."""
    from wholetrack import healthcheck

    raise typer.Exit(healthcheck.main(_settings().port))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A recording.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="Model to ask; the default one if not given.")] = None,
) -> None:
    """Answer a recording a second time by the reference road, and print how far the two are apart.

    The reference is the way of the published systems: pydub reads what ffmpeg decoded, librosa computes the features of
    every window by itself, and the network hears one window at a time. Exits with 1 if a probability differs by more
    than 0.005.
    """
    from wholetrack.cli.verify import compare

    settings = _settings()
    configure_logs(level="warning", form="text")
    with _pipeline(settings) as pipeline:
        found = compare(pipeline, file, model=model, max_duration_s=settings.max_duration_s)
    typer.echo(found.text())
    if not found.agrees:
        raise typer.Exit(1)


def _settings(**given: str | int | None) -> Settings:
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        # A list that is no JSON is a complaint without a place, which names the setting in its words.
        complaints = (
            f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" if e["loc"] else e["msg"] for e in error.errors()
        )
        _fail("; ".join(complaints))


@contextmanager
def _pipeline(settings: Settings) -> Iterator[Pipeline]:
    try:
        pipeline = build_pipeline(settings)
        try:
            yield pipeline
        finally:
            pipeline.close()
    except (StartupError, ServiceError) as error:
        _fail(error.detail if isinstance(error, ServiceError) else str(error))


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"wholetrack: {sentence}", err=True)
    raise typer.Exit(1)


def _recordings(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in _AUDIO_SUFFIXES and p.is_file())
        elif path.is_file():
            yield path
        else:
            _fail(f"{path} is neither a file nor a folder")


def main() -> None:
    """Run the command line."""
    sys.exit(app())
