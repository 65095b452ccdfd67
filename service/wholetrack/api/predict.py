"""``POST /v1/predict``: the route and its documentation."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from wholetrack.api.examples import EXAMPLES_OF_FORMATS, PREDICTION, success_response
from wholetrack.api.formats import ResponseFormat
from wholetrack.api.predictions import Predictions
from wholetrack.api.problems import error_responses
from wholetrack.api.schemas import PredictionResponse, PredictParameters
from wholetrack.api.upload import REQUEST_BODY
from wholetrack.errors import ErrorKind

PREDICT_PATH = "/v1/predict"

_ERRORS = (
    ErrorKind.MALFORMED_REQUEST,
    ErrorKind.UNKNOWN_MODEL,
    ErrorKind.NOT_ACCEPTABLE,
    ErrorKind.REQUEST_TOO_SLOW,
    ErrorKind.UPLOAD_TOO_LARGE,
    ErrorKind.AUDIO_TOO_LONG,
    ErrorKind.UNSUPPORTED_MEDIA,
    ErrorKind.UNKNOWN_HOST,
    ErrorKind.UNDECODABLE_AUDIO,
    ErrorKind.NO_AUDIO_STREAM,
    ErrorKind.EMPTY_AUDIO,
    ErrorKind.INVALID_PARAMETER,
    ErrorKind.OVERLOADED,
    ErrorKind.HEADERS_TOO_LARGE,
    ErrorKind.INTERNAL_ERROR,
    ErrorKind.UNSUPPORTED_TRANSFER_CODING,
    ErrorKind.DRAINING,
    ErrorKind.DEVICE_FAILED,
    ErrorKind.MODEL_UNAVAILABLE,
    ErrorKind.DEADLINE_EXCEEDED,
)

_SUCCESS = success_response(PREDICTION)
_SUCCESS[200]["content"] |= {
    offered.media_type: {"schema": {"type": "string"}, "example": example}
    for offered, example in EXAMPLES_OF_FORMATS.items()
}
for binary in (ResponseFormat.PNG, ResponseFormat.PARQUET):
    _SUCCESS[200]["content"][binary.media_type] = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter(tags=["prediction"])


@router.post(
    PREDICT_PATH,
    summary="Predict the genre of a recording",
    response_model=PredictionResponse,
    responses=_SUCCESS | error_responses(*_ERRORS),
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def predict(request: Request, parameters: Annotated[PredictParameters, Query()]) -> Response:
    """Predicts the genre of a whole recording of any length.

    The recording is decoded and divided into overlapping windows, and each window is classified. The response ranks the
    genres by summed score and by majority vote, divides the track into sections, and lists the probabilities of every
    window.

    With `Accept: text/event-stream` or `application/x-ndjson`, events report the windows as they are classified. They
    are called `start` (the model and its labels), `progress` (`decoded_s`, and the peaks of the waveform), `windows`
    (some windows in chronological order; `first` is the index of the first one), and finally `result` (the response as
    JSON) or `error` (a problem, which says in `retry_after_s` what the header Retry-After says otherwise). After
    `restart`, which has the data of `start`, the recording is decoded again, and everything before it is void. If
    nothing happens for ten seconds, a heartbeat is sent: a comment, or in NDJSON the event `heartbeat` without data. A
    result from the cache is sent as `result` alone. An error within the first second after the upload, and before the
    first event, has its own status, as without events.

    Rows of CSV, JSON Lines and Parquet have the columns `kind` (`summed_score`, `majority_vote`, `section` or
    `window`), `start_s` and `end_s` in seconds, `genre` (none if silent), `share` from 0 to 1, `silent`, and for
    windows `p_` followed by a label: its probability from 0 to 1. In Parquet, `start_s`, `end_s` and `share` are
    doubles, the probabilities are floats, `silent` is a boolean, and what does not apply to a row is null; the
    metadata of the file names the model, its version, and `window_s` and `hop_s`. Filter rows by `kind` to read the
    windows or the sections.
    """
    predictions: Predictions = request.app.state.predictions
    return await predictions.respond(request, parameters)
