"""Writing the timeline of a recording as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.schemas import WindowDetail
from wholetrack.api.timeline import timeline_svg
from wholetrack.cli.files import FileResult, text_of
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
    source = SourceFile(Path(text_of(result.path)).name, sha256="", n_bytes=0, began=result.began)
    n_labels = len(prediction.card.labels)
    picture = timeline_svg(prediction_response(prediction, source, top_k=n_labels, detail=WindowDetail.FULL))
    try:
        target.write_text(picture)
    except OSError as error:
        raise OutputError(f"cannot write {text_of(target)}: {error.strerror}") from error
