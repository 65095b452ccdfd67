"""Running the network alone on windows that the client sends: admission, the body, and the engine."""

from __future__ import annotations

from functools import partial

from fastapi import Request, Response

from wholetrack.api.admission import Admission
from wholetrack.api.deadline import Deadline
from wholetrack.api.keys import key_of, permits
from wholetrack.api.one_at_a_time import OneAtATime
from wholetrack.api.tensors import (
    JSON_LENGTH_HEADER,
    InferenceRequest,
    check_outputs,
    input_rows,
    parse_request,
    render_response,
)
from wholetrack.api.threads import PredictionThreads
from wholetrack.api.upload import UploadLimits, body_chunks
from wholetrack.cancellation import Cancellation
from wholetrack.contracts import Rows
from wholetrack.inference.outputs import Keep
from wholetrack.served_model import ServedModel
from wholetrack.settings import Settings

MAX_BODY_BYTES = 8 << 20
"""Largest body: 56 windows of wholetrack-crnn 2, or 420 of version 1."""

# Each of them may hold a whole body in memory.
_MAX_IN_PROGRESS = 16


class Inferences:
    """Handles the inferences of one application. They have permits of their own, so they take none from predictions.

    Their windows share the batches of the engine with those of the predictions, each with the same weight.

    Args:
        settings: Limits on the body and on the time of a request.
        predictions: Admits the predictions. Inferences end with them when the service shuts down.
    """

    def __init__(self, settings: Settings, predictions: Admission) -> None:
        self._limits = UploadLimits(MAX_BODY_BYTES, settings.min_upload_bytes_per_s, settings.client_timeout_s)
        self._timeout_s = settings.request_timeout_s
        self._predictions = predictions
        self._admission = Admission(_MAX_IN_PROGRESS, kind="inferences")
        self._parsing = OneAtATime(predictions)
        self._threads = PredictionThreads(_MAX_IN_PROGRESS)

    def close(self) -> None:
        """Wait for the inferences in progress."""
        self._threads.close()

    async def respond(self, request: Request, served: ServedModel) -> Response:
        """Receive windows, and respond with the outputs of the network.

        Raises:
            ServiceError: Any error that the route documents.
        """
        served.check_available()
        deadline, key = Deadline(self._timeout_s), key_of(request.scope)
        self._admission.draining = self._predictions.draining
        async with permits(key, self._admission):
            async with deadline.enforced():
                body = bytearray()
                async for chunk in body_chunks(request, self._limits, envelope_bytes=0):
                    body += chunk
                json_length = request.headers.get(JSON_LENGTH_HEADER)
                wanted, windows = await self._parsing.run(partial(_parsed, bytes(body), json_length, served))
            cancellation = Cancellation()
            work = partial(_infer, served, wanted, windows, cancellation, weight=key.weight if key else 1)
            return await self._threads.run(work, request=request, deadline=deadline, cancellation=cancellation)


def _parsed(body: bytes, json_length: str | None, served: ServedModel) -> tuple[InferenceRequest, Rows]:
    card = served.card
    request, binary = parse_request(body, json_length)
    check_outputs(request, card.outputs.names, model=card.name)
    names = [entry.name for entry in card.inputs]
    shapes = dict(zip(names, served.features.shapes, strict=True))
    return request, input_rows(request, binary, shapes, model=card.name)


def _infer(
    served: ServedModel, request: InferenceRequest, windows: Rows, cancellation: Cancellation, *, weight: int
) -> Response:
    names = served.card.outputs.names
    with (
        served.open_track(weight=weight, keep=[Keep.ROWS] * len(names)) as queue,
        cancellation.calling(queue.abandon),
    ):
        queue.put(windows)
        outputs = queue.finish()
    assert outputs is not None
    rows = {name: array for name, array in zip(names, outputs.rows, strict=True) if array is not None}
    body, json_length = render_response(request, rows, model=served.card.name, version=served.card.version)
    if json_length is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type="application/octet-stream", headers={JSON_LENGTH_HEADER: str(json_length)})
