"""``POST /v1/predict``: from a request to an answer, with nothing left behind whatever happens in between."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from wholetrack.api.admission import Admission
from wholetrack.api.cache import Question, Repeats
from wholetrack.api.examples import PREDICTION, answered
from wholetrack.api.keys import key_of
from wholetrack.api.metrics import Metrics
from wholetrack.api.problems import PREDICT_PATH, documented
from wholetrack.api.schemas import PredictionAnswer, PredictParameters, Received, answer
from wholetrack.api.tracing import Tracing
from wholetrack.api.upload import Upload, UploadLimits, received
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import TrackPrediction
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings

_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The recording: multipart with one part called `file`, or the bytes of the file as the body. "
        "Accepted are wav, flac, mp3, ogg (vorbis, opus, flac), m4a and mp4 (aac, alac), aac, aiff, wma and webm, "
        "whatever the name says.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Predictions:
    """Admits predictions, runs each in a thread, and stops those that nobody waits for any more.

    Attributes:
        admission: of predictions.
    """

    def __init__(
        self, pipeline: Pipeline, settings: Settings, metrics: Metrics, tracing: Tracing, folder: Path
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing
        self._folder = folder
        self._limits = UploadLimits(
            max_bytes=settings.max_upload_bytes,
            least_bytes_per_s=settings.min_upload_bytes_per_s,
            patience_s=settings.client_timeout_s,
        )
        self._threads = ThreadPoolExecutor(settings.tracks_open, thread_name_prefix="track")
        self._repeats = Repeats(settings.repeats_mb << 20)
        self.admission = Admission(settings.max_requests)

    def close(self) -> None:
        """Wait for what is under way and end the threads."""
        self._threads.shutdown()

    async def predict(self, request: Request, parameters: PredictParameters) -> Response:
        """Receive, hear and answer.

        Returns:
            The answer as JSON, with the header ``Server-Timing`` (https://www.w3.org/TR/server-timing).

        Raises:
            ServiceError: any of the table's.
        """
        began, limit_s = time.monotonic(), self._settings.request_timeout_s
        self._check(parameters)
        key = key_of(request.scope)
        async with AsyncExitStack() as stack:
            stack.enter_context(key.place() if key else nullcontext())
            await stack.enter_async_context(self.admission.one())
            stack.enter_context(self._metrics.in_progress.track_inprogress())
            try:
                async with asyncio.timeout(limit_s) as limit:
                    with self._tracing.span("receive"):
                        upload = await stack.enter_async_context(received(request, self._folder, self._limits))
                    # From here on it is not this task that must be stopped, but the thread that it waits for.
                    limit.reschedule(None)
                    return await self._heard(request, upload, parameters, began, weight=key.weight if key else 1)
            except TimeoutError as error:
                raise self._too_slow() from error

    def _check(self, parameters: PredictParameters) -> None:
        """Refuse what can be refused before the upload."""
        served = self._pipeline.model(parameters.model)
        served.grid(parameters.hop_s)
        if parameters.top_k > len(served.card.labels):
            raise ServiceError(
                ErrorKind.INVALID_PARAMETER,
                f"top_k: {served.card.name} knows {len(served.card.labels)} genres, so top_k is 1 to "
                f"{len(served.card.labels)}.",
            )

    async def _heard(
        self, request: Request, upload: Upload, parameters: PredictParameters, began: float, *, weight: int
    ) -> Response:
        cancellation = Cancellation()
        submitted = time.monotonic()
        card = self._pipeline.model(parameters.model).card
        question = Question(upload.sha256, (card.name, card.version), parameters.hop_s)

        def work() -> Response:
            wait_s = time.monotonic() - submitted
            with self._tracing.span("hear") as facts:
                found = self._found(question, upload, cancellation, weight=weight)
                received_ = Received(upload.filename, upload.sha256, upload.n_bytes, began, upload.receive_s, wait_s)
                answered = answer(found, received_, top_k=parameters.top_k, detail=parameters.windows)
                body = answered.model_dump_json(exclude_unset=True).encode()
                times = answered.timing_ms.model_dump()
                facts |= {"model": found.card.name, "windows": answered.windows.count, "audio_s": found.duration_s}
                facts |= {f"{stage}_ms": ms for stage, ms in times.items()}
            self._metrics.answered(
                model=found.card.name,
                n_windows=answered.windows.count,
                duration_s=found.duration_s,
                timing=answered.timing_ms,
            )
            timing = ", ".join(f"{stage};dur={ms}" for stage, ms in times.items())
            return Response(body, media_type="application/json", headers={"Server-Timing": timing})

        deadline = began + self._settings.request_timeout_s
        return await self._watched(request, work, cancellation, deadline)

    def _found(self, question: Question, upload: Upload, cancellation: Cancellation, *, weight: int) -> TrackPrediction:
        """What is known of a recording heard before, or what the pipeline hears now."""
        found = self._repeats.get(question)
        if self._settings.repeats_mb:
            self._metrics.asked(known=found is not None)
        if found is None:
            found = self._pipeline.predict(
                upload.path,
                model=question.model[0],
                hop_s=question.hop_s,
                max_duration_s=self._settings.max_duration_s,
                weight=weight,
                cancellation=cancellation,
            )
            self._repeats.put(question, found)
        return found

    async def _watched(
        self, request: Request, work: Callable[[], Response], cancellation: Cancellation, deadline: float
    ) -> Response:
        """Run ``work`` in a thread until it is done, the client leaves, the time is up, or the service stops.

        Returns only when the thread is out of the upload's file.
        """
        # The context carries the request's id into the thread's log records.
        running = self._threads.submit(contextvars.copy_context().run, work)
        result: asyncio.Future[Any] = asyncio.wrap_future(running)
        gone: asyncio.Future[Any] = asyncio.create_task(_client_leaves(request))
        try:
            await asyncio.wait([result, gone], timeout=deadline - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                left = ServiceError(ErrorKind.CLIENT_GONE, "The client left before its answer.")
                cancellation.cancel(left if gone.done() else self._too_slow())
        except asyncio.CancelledError:
            # uvicorn cancels what outlasts the shutdown's time limit; the client is told why.
            cancellation.cancel(self.admission.goodbye())
        finally:
            gone.cancel()
        if cancellation.reason is not None and running.cancel():
            raise cancellation.reason
        while not result.done():
            # Who cancels once more has to wait all the same: the thread still reads the file.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([result])
        outcome: Response = result.result()
        return outcome

    def _too_slow(self) -> ServiceError:
        return ServiceError(
            ErrorKind.DEADLINE_EXCEEDED,
            f"The request took longer than the limit of {self._settings.request_timeout_s:g} seconds.",
        )


async def _client_leaves(request: Request) -> None:
    """Return when the connection of a request whose body was read is closed."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


router = APIRouter(tags=["prediction"])


@router.post(
    PREDICT_PATH,
    summary="What genre is this recording?",
    response_model=PredictionAnswer,
    responses=answered(PREDICTION)
    | documented(
        ErrorKind.MALFORMED_REQUEST,
        ErrorKind.UNKNOWN_MODEL,
        ErrorKind.REQUEST_TOO_SLOW,
        ErrorKind.UPLOAD_TOO_LARGE,
        ErrorKind.AUDIO_TOO_LONG,
        ErrorKind.UNSUPPORTED_MEDIA,
        ErrorKind.UNDECODABLE_AUDIO,
        ErrorKind.NO_AUDIO_STREAM,
        ErrorKind.EMPTY_AUDIO,
        ErrorKind.INVALID_PARAMETER,
        ErrorKind.OVERLOADED,
        ErrorKind.HEADERS_TOO_LARGE,
        ErrorKind.INTERNAL_ERROR,
        ErrorKind.DRAINING,
        ErrorKind.DEVICE_FAILED,
        ErrorKind.MODEL_UNAVAILABLE,
        ErrorKind.DEADLINE_EXCEEDED,
    ),
    openapi_extra=_UPLOAD,
)
async def predict(request: Request, parameters: Annotated[PredictParameters, Query()]) -> Response:
    """Hear a whole recording of any length and name its genre.

    The recording is decoded, cut into overlapping windows, and every window is classified. The answer ranks the
    genres by summed score and by majority vote, divides the track into sections, and holds the probabilities of every
    window.
    """
    predictions: Predictions = request.app.state.predictions
    return await predictions.predict(request, parameters)
