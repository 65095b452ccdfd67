"""Writing the timeline of a recording as a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from wholetrack.api.schemas import PredictionResponse
from wholetrack.api.timeline import timeline_svg
from wholetrack.api.timeline_png import timeline_png
from wholetrack.cli.files import FileResult, text_of
from wholetrack.cli.render import full_response
from wholetrack.cli.standard_streams import OutputError
from wholetrack.contracts import TrackPrediction
from wholetrack.errors import ServiceError

_PICTURES: dict[str, Callable[[PredictionResponse], str | bytes]] = {".svg": timeline_svg, ".png": timeline_png}
PICTURE_SUFFIXES = tuple(_PICTURES)
"""How the names of the files that :func:`plotted` can write end."""


def plotted(results: Iterable[FileResult], target: Path) -> Iterator[FileResult]:
    """Yield the results, and write the timeline of each that succeeded to the SVG or PNG file ``target``.

    Raises:
        OutputError: If the picture cannot be drawn or the file cannot be written.
    """
    for result in results:
        if isinstance(result.outcome, TrackPrediction):
            _write(result, result.outcome, target)
        yield result


def _write(result: FileResult, prediction: TrackPrediction, target: Path) -> None:
    try:
        picture = _PICTURES[target.suffix.lower()](full_response(result, prediction))
    except ServiceError as error:
        raise OutputError(f"cannot draw {text_of(target)}: {error.detail}") from error
    try:
        target.write_bytes(picture if isinstance(picture, bytes) else picture.encode())
    except OSError as error:
        raise OutputError(f"cannot write {text_of(target)}: {error.strerror}") from error
