"""What most commands begin with: the settings, and the pipeline. Errors end the command with one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wholetrack.deprecated_settings import warn_about_former_names
from wholetrack.errors import ServiceError, StartupError
from wholetrack.logs import configure_logs
from wholetrack.pipeline import Pipeline
from wholetrack.settings import PREFIX, Settings
from wholetrack.startup import build_pipeline


def load_command_settings() -> Settings:
    """Load the settings for a command other than ``serve``, which logs only warnings, as text."""
    settings = load_settings()
    configure_logs(level="warning", log_format="text")
    warn_about_former_names(Settings)
    return settings


def load_settings(**options: str | int | None) -> Settings:
    """Load the settings; options that are given and, like variables, not blank override them."""
    given = {name: value for name, value in options.items() if value is not None and str(value).strip()}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        # The error for a list that is not valid JSON has no location; its message names the setting.
        complaints = (
            f"{PREFIX}{str(e['loc'][0]).upper()}: {_message(e)}" if e["loc"] else _message(e) for e in error.errors()
        )
        fail("; ".join(complaints))
    except OSError as error:
        fail(f"cannot read the settings: {error.strerror}: {error.filename}")


@contextmanager
def open_pipeline(settings: Settings) -> Iterator[Pipeline]:
    """Build the pipeline for the duration of the block; errors in the block end the command with one sentence."""
    try:
        pipeline = build_pipeline(settings)
        try:
            yield pipeline
        finally:
            pipeline.close()
    except (StartupError, ServiceError) as error:
        fail(error.detail if isinstance(error, ServiceError) else str(error))


def fail(sentence: str) -> NoReturn:
    """Print a sentence to standard error, and end the command with status 1."""
    typer.echo(f"wholetrack: {sentence}", err=True)
    raise typer.Exit(1)


def _message(error: ErrorDetails) -> str:
    if error["type"] != "value_error":
        return error["msg"]
    # pydantic puts "Value error, " in front of the messages of our own checks.
    cause = error["ctx"]["error"]
    return f".env is not UTF-8: {cause}" if isinstance(cause, UnicodeDecodeError) else str(cause)
