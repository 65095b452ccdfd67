"""Predictions over HTTP: admission, upload, cache, pipeline, and the response with its metrics and spans."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial
from pathlib import Path

from fastapi import Request, Response

from wholetrack.api import parquet
from wholetrack.api.admission import Admission
from wholetrack.api.cache import CacheKey, PredictionCache
from wholetrack.api.deadline import Deadline
from wholetrack.api.event_stream import EventStream, first_event
from wholetrack.api.exports import RENDERERS
from wholetrack.api.formats import ResponseFormat, negotiate
from wholetrack.api.keys import key_of, permits
from wholetrack.api.live_events import LiveEvents
from wholetrack.api.metrics import Metrics
from wholetrack.api.responses import SourceFile, prediction_response
from wholetrack.api.schemas import PredictionOptions, PredictionResponse, PredictParameters, WindowDetail
from wholetrack.api.threads import PredictionThreads
from wholetrack.api.tracing import Attributes, Tracing
from wholetrack.api.upload import Upload, UploadLimits, receive_upload
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import Detail, TrackPrediction
from wholetrack.decoding.live_pcm import LivePcm
from wholetrack.errors import ErrorKind, ServiceError
from wholetrack.observer import Observer
from wholetrack.settings import Settings
from wholetrack.track_pipeline import TrackPipeline

_log = logging.getLogger(__name__)


class Predictions:
    """Handles the predictions of one application.

    Args:
        pipeline: Predicts the tracks.
        settings: Limits, and the size of the cache.
        admission: Limits how many predictions are in progress.
        metrics: Counts the predictions.
        tracing: Creates their spans.
        folder: A private folder for uploads.
    """

    def __init__(
        self,
        pipeline: TrackPipeline,
        settings: Settings,
        *,
        admission: Admission,
        metrics: Metrics,
        tracing: Tracing,
        folder: Path,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._admission = admission
        self._metrics = metrics
        self._tracing = tracing
        self._folder = folder
        self._upload_limits = UploadLimits(
            max_bytes=settings.max_upload_bytes,
            min_bytes_per_s=settings.min_upload_bytes_per_s,
            grace_s=settings.client_timeout_s,
        )
        self._threads = PredictionThreads(settings.max_requests)
        self._cache = PredictionCache(settings.cache_mb << 20)

    def close(self) -> None:
        """Wait for the predictions in progress and end their threads."""
        self._threads.close()

    async def respond(self, request: Request, parameters: PredictParameters) -> Response:
        """Predict the recording of a request, and respond in the format that the client prefers.

        Returns:
            The prediction, or a stream of events that ends with it as JSON.

        Raises:
            ServiceError: Any error that the route documents.
        """
        unavailable = () if parquet.is_available() else (ResponseFormat.PARQUET,)
        if parameters.format in unavailable:
            raise parquet.not_available()
        accept = ", ".join(request.headers.getlist("accept"))
        response_format = parameters.format or negotiate(accept, unavailable=unavailable)
        if response_format.is_live:
            response = await self._predict_live(request, parameters, response_format)
        else:
            response = await self._predict(request, parameters, response_format)
        response.headers.add_vary_header("Accept")
        return response

    async def _predict_live(
        self, request: Request, parameters: PredictParameters, response_format: ResponseFormat
    ) -> Response:
        """Start the prediction of a recording, and return a response that follows it."""
        live = LiveEvents(parameters.windows)
        prediction = asyncio.create_task(self._predict(request, parameters, ResponseFormat.JSON, live))
        prediction.add_done_callback(lambda _: live.wake())
        await first_event(prediction, live)
        return EventStream(prediction, live, response_format, on_error=self.count_error)

    async def _predict(
        self,
        request: Request,
        parameters: PredictParameters,
        response_format: ResponseFormat,
        live: LiveEvents | None = None,
    ) -> Response:
        """Receive the recording of a request and predict it.

        Returns:
            The prediction, with the header ``Server-Timing`` (https://www.w3.org/TR/server-timing).
        """
        deadline = Deadline(self._settings.request_timeout_s)
        self.check(parameters)
        if response_format is not ResponseFormat.JSON:
            # Tables and pictures show neither. With the defaults, they share a cached prediction with JSON.
            parameters = parameters.model_copy(update={"tags": None, "embedding": Detail.NONE})
        key = key_of(request.scope)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(permits(key, self._admission))
            stack.enter_context(self.track_in_progress())
            upload = await self._receive(request, deadline, stack)
            if live:
                live.uploaded.set()
            cancellation = Cancellation()
            run = partial(
                self._run_pipeline, upload, parameters, cancellation, weight=key.weight if key else 1, observer=live
            )
            source = SourceFile(upload.filename, upload.sha256, upload.n_bytes, deadline.began, upload.receive_s)
            work = partial(self._render, run, lambda: source, parameters, response_format)
            return await self._threads.run(work, request=request, deadline=deadline, cancellation=cancellation)

    def track_in_progress(self) -> AbstractContextManager[object]:
        """Count a prediction as in progress for the duration of the block."""
        return self._metrics.in_progress.track_inprogress()

    def start_live(
        self,
        audio: LivePcm,
        options: PredictionOptions,
        source: Callable[[], SourceFile],
        *,
        weight: int,
        observer: Observer,
        cancellation: Cancellation,
    ) -> asyncio.Future[Response]:
        """Start the prediction of audio that is still being received. The caller holds a permit until it has finished.

        Args:
            audio: The audio.
            options: Options that :meth:`check` accepts.
            source: Describes the audio once it has ended.
            weight: Share of the machine relative to a track of weight 1.
            observer: Follows the track.
            cancellation: Stops it.
        """
        run = partial(self._classify, audio, options, cancellation, weight=weight, observer=observer)
        return self._threads.start(partial(self._render, run, source, options, ResponseFormat.JSON))

    def check(self, parameters: PredictionOptions) -> None:
        """Reject invalid parameters before the recording is received.

        Raises:
            ServiceError: ``unknown_model``, ``model_unavailable`` or ``invalid_parameter``.
        """
        served = self._pipeline.model(parameters.model)
        served.check_available()
        served.grid(parameters.hop_s)
        served.keep(tags=parameters.tags, embedding=parameters.embedding)
        n_labels = len(served.genres(parameters.taxonomy))
        # The default applies to every model, also to one with fewer genres.
        if "top_k" in parameters.model_fields_set and parameters.top_k > n_labels:
            raise ServiceError(
                ErrorKind.INVALID_PARAMETER,
                f"top_k: {served.card.name} has {n_labels} genres, so top_k must be from 1 to {n_labels}.",
            )

    async def _receive(self, request: Request, deadline: Deadline, stack: AsyncExitStack) -> Upload:
        """Receive the upload before the deadline; leaving ``stack`` removes it."""
        async with deadline.enforced():
            with self._tracing.span("receive"):
                return await stack.enter_async_context(receive_upload(request, self._folder, self._upload_limits))

    def _render(
        self,
        predict: Callable[[], TrackPrediction],
        source: Callable[[], SourceFile],
        parameters: PredictionOptions,
        response_format: ResponseFormat,
    ) -> Response:
        """Predict a recording and build its response; runs in a thread."""
        with self._tracing.span("predict") as attributes:
            prediction = predict()
            # All formats but JSON say the same about every window.
            detail = parameters.windows if response_format is ResponseFormat.JSON else WindowDetail.FULL
            content = prediction_response(prediction, source(), top_k=parameters.top_k, detail=detail)
            body = RENDERERS[response_format](content)
            attributes.update(_span_attributes(prediction, content))
        model = self._pipeline.key(parameters.model)
        self._metrics.count_prediction(
            model=model,
            n_windows=content.windows.count,
            duration_s=prediction.duration_s,
            timing=content.timing_ms,
        )
        self._metrics.results.count(model, content)
        headers = {"Server-Timing": _server_timing(content)}
        return Response(body, media_type=response_format.media_type, headers=headers)

    def _run_pipeline(
        self,
        upload: Upload,
        parameters: PredictParameters,
        cancellation: Cancellation,
        *,
        weight: int,
        observer: Observer | None,
    ) -> TrackPrediction:
        """Return the cached prediction of a recording, or run the pipeline."""
        key = CacheKey.of(
            upload.sha256,
            self._pipeline.model(parameters.model),
            hop_s=parameters.hop_s,
            taxonomy=parameters.taxonomy,
            tags=parameters.tags,
            embedding=parameters.embedding,
        )
        prediction = self._cache.get(key)
        if self._settings.cache_mb:
            self._metrics.count_cache_lookup(hit=prediction is not None)
        if prediction is None:
            prediction = self._classify(upload.path, parameters, cancellation, weight=weight, observer=observer)
            self._cache.put(key, prediction)
        return prediction

    def _classify(
        self,
        source: Path | LivePcm,
        options: PredictionOptions,
        cancellation: Cancellation,
        *,
        weight: int,
        observer: Observer | None,
    ) -> TrackPrediction:
        return self._pipeline.predict(
            source,
            model=options.model,
            hop_s=options.hop_s,
            taxonomy=options.taxonomy,
            tags=options.tags,
            embedding=options.embedding,
            max_duration_s=self._settings.max_duration_s,
            weight=weight,
            cancellation=cancellation,
            observer=observer,
        )

    def count_error(self, error: ServiceError) -> None:
        """Log and count an error that is reported in an event."""
        if error.kind is ErrorKind.CLIENT_GONE:
            _log.info("the client disconnected")
        self._metrics.predictions.labels(error.kind.code).inc()


def _span_attributes(prediction: TrackPrediction, content: PredictionResponse) -> Attributes:
    stages = {f"{stage}_ms": ms for stage, ms in content.timing_ms.model_dump().items()}
    return {
        "model": prediction.card.name,
        "windows": content.windows.count,
        "audio_s": prediction.duration_s,
        **stages,
    }


def _server_timing(content: PredictionResponse) -> str:
    return ", ".join(f"{stage};dur={ms}" for stage, ms in content.timing_ms.model_dump().items())
