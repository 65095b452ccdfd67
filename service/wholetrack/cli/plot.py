"""Writing the timeline of a recording as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from wholetrack.api.timeline import timeline_svg
from wholetrack.cli.files import FileResult, text_of
from wholetrack.cli.render import full_response
from wholetrack.cli.standard_streams import OutputError
from wholetrack.contracts import TrackPrediction


def plotted(results: Iterable[FileResult], target: Path) -> Iterator[FileResult]:
    """Yield the results, and write the timeline of each that succeeded to the file ``target``.

    Raises:
        OutputError: If the file cannot be written.
    """
    for result in results:
        if isinstance(result.outcome, TrackPrediction):
            _write(result, result.outcome, target)
        yield result


def _write(result: FileResult, prediction: TrackPrediction, target: Path) -> None:
    picture = timeline_svg(full_response(result, prediction))
    try:
        target.write_text(picture)
    except OSError as error:
        raise OutputError(f"cannot write {text_of(target)}: {error.strerror}") from error
