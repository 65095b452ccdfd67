"""The errors that end a command with one sentence and exit code 1. Any other exception is a bug and is not caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from wholetrack.errors import ServiceError, StartupError
from wholetrack_training.errors import TrainingError

INSTALL = "pip install -c constraints.txt -e '.[cpu,train]' -e training"
"""Installs the extra with everything that training needs."""
_OPTIONAL_PACKAGES = frozenset(
    {"librosa", "matplotlib", "onnx", "onnxruntime", "onnxscript", "pydub", "scipy", "sklearn", "torch"}
)


class ReportingGroup(TyperGroup):
    """A group of commands that reports expected errors on stderr."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the class of the context depends on the version of typer
        """Run a command.

        Raises:
            typer.Exit: With code 1 after an expected error.
        """
        try:
            return super().invoke(ctx)
        except tuple(_SENTENCES) as error:
            sentence = next(describe(error) for kind, describe in _SENTENCES.items() if isinstance(error, kind))
            if sentence is None:
                raise
            typer.echo(f"wholetrack-train: {sentence}", err=True)
            raise typer.Exit(1) from error


def _missing_package(error: ModuleNotFoundError) -> str | None:
    package = (error.name or "").partition(".")[0]
    if package not in _OPTIONAL_PACKAGES:
        return None
    return f"this command needs the package {package}, which is not installed; install the extra 'train': {INSTALL}"


def _file_error(error: OSError) -> str | None:
    return f"{error.filename}: {error.strerror}" if error.filename else None


_SENTENCES: dict[type[Exception], Callable[[Any], str | None]] = {
    TrainingError: str,
    StartupError: str,
    ServiceError: lambda error: error.detail,
    ModuleNotFoundError: _missing_package,
    OSError: _file_error,
}
"""For each expected error, a function that returns the sentence, or None if this instance is a bug after all."""
