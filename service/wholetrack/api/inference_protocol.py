"""``/v2``: the Open Inference Protocol, for programs that compute the windows themselves.

KServe, Triton and MLServer serve models by the same protocol, so that their clients can use this service as well.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from wholetrack import __version__
from wholetrack.api.admission import Admission, draining_error
from wholetrack.api.examples import INFERENCE, INFERENCE_MODEL, INFERENCE_SERVER, success_response
from wholetrack.api.inferences import Inferences
from wholetrack.api.problems import BODY_ERRORS, error_responses
from wholetrack.api.tensors import DATATYPE, InferenceRequest, InferenceResponse
from wholetrack.errors import ErrorKind
from wholetrack.inference.worker import device_failed
from wholetrack.served_model import ServedModel
from wholetrack.track_pipeline import TrackPipeline

PROTOCOL_PREFIX = "/v2"
"""Path prefix of the protocol."""

router = APIRouter(prefix=PROTOCOL_PREFIX, tags=["open inference protocol"])

_NOT_READY = (ErrorKind.DEVICE_FAILED, ErrorKind.MODEL_UNAVAILABLE)
_INFERENCE_ERRORS = (*BODY_ERRORS, ErrorKind.UNKNOWN_MODEL, *_NOT_READY)

_Name = Annotated[str, Path(description="Name of a served model.", examples=["wholetrack-crnn"])]
_Version = Annotated[str, Path(description="Its version.", examples=["2"])]


class ServerMetadata(BaseModel):
    """The service."""

    name: str
    version: str
    extensions: list[str] = Field(description="Extensions of the protocol that the service supports.")


class TensorMetadata(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 stands for the number of windows.")


class ModelMetadata(BaseModel):
    """A model. `/v1/models/NAME` describes its inputs."""

    name: str
    versions: list[str] = Field(description="The versions that are served.")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """The process is alive."""

    live: bool


class ServerReady(BaseModel):
    """The service can classify windows."""

    ready: bool


class ModelReady(BaseModel):
    """The model can classify windows."""

    name: str
    ready: bool


def _request_body() -> dict[str, Any]:
    """Return the documentation of the body, which the route reads itself because it may end with raw values."""
    content = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{InferenceRequest.__name__}"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    return {"requestBody": {"required": True, "content": content}}


@router.get("", summary="Describe the service", responses=success_response(INFERENCE_SERVER))
async def server_metadata() -> ServerMetadata:
    """Returns the name and version of the service, and the extensions of the protocol that it supports."""
    return ServerMetadata(name="wholetrack", version=__version__, extensions=["binary_tensor_data"])


@router.get("/health/live", summary="Liveness", responses=success_response({"live": True}))
async def server_live() -> Live:
    """Returns 200 as long as the event loop is running."""
    return Live(live=True)


@router.get(
    "/health/ready",
    summary="Readiness",
    responses=success_response({"ready": True}) | error_responses(*_NOT_READY, ErrorKind.DRAINING),
)
async def server_ready(request: Request) -> ServerReady:
    """Returns 200 if the default model can classify windows."""
    admission: Admission = request.app.state.admission
    if admission.draining:
        raise draining_error()
    _check_ready(_model(request, None))
    return ServerReady(ready=True)


@router.get(
    "/models/{name}",
    summary="Describe the inputs and outputs of a model",
    responses=success_response(INFERENCE_MODEL) | error_responses(ErrorKind.UNKNOWN_MODEL),
)
async def model_metadata(request: Request, name: _Name) -> ModelMetadata:
    """Returns the newest version of a model.

    The inputs are normalised log-mel windows, which the card in `/v1/models/NAME` describes. The outputs are those that
    predictions are made from: `scores`, the probabilities of the genres; and, if the model has them, `tags`, their
    probabilities before calibration, and `embedding`, of unit length.
    """
    return _metadata(request, name)


@router.get(
    "/models/{name}/versions/{version}",
    summary="Describe the inputs and outputs of a version",
    responses=success_response(INFERENCE_MODEL) | error_responses(ErrorKind.UNKNOWN_MODEL),
)
async def version_metadata(request: Request, name: _Name, version: _Version) -> ModelMetadata:
    """Returns one version of a model."""
    return _metadata(request, f"{name}@{version}")


@router.get(
    "/models/{name}/ready",
    summary="Readiness of a model",
    responses=success_response({"name": "wholetrack-crnn", "ready": True})
    | error_responses(ErrorKind.UNKNOWN_MODEL, *_NOT_READY),
)
async def model_ready(request: Request, name: _Name) -> ModelReady:
    """Returns 200 if a model can classify windows."""
    return _readiness(request, name)


@router.get(
    "/models/{name}/versions/{version}/ready",
    summary="Readiness of a version",
    responses=success_response({"name": "wholetrack-crnn", "ready": True})
    | error_responses(ErrorKind.UNKNOWN_MODEL, *_NOT_READY),
)
async def version_ready(request: Request, name: _Name, version: _Version) -> ModelReady:
    """Returns 200 if one version of a model can classify windows."""
    return _readiness(request, f"{name}@{version}")


@router.post(
    "/models/{name}/infer",
    summary="Classify windows",
    response_model=InferenceResponse,
    responses=success_response(INFERENCE) | error_responses(*_INFERENCE_ERRORS),
    openapi_extra=_request_body(),
)
async def infer(request: Request, name: _Name) -> Response:
    """Runs the network of a model on windows that the client has computed.

    The values of inputs and outputs are part of the JSON, or follow it: the header `Inference-Header-Content-Length`
    then states the size of the JSON. The body may be up to 8 MiB.
    """
    return await _respond(request, name)


@router.post(
    "/models/{name}/versions/{version}/infer",
    summary="Classify windows with one version",
    response_model=InferenceResponse,
    responses=success_response(INFERENCE) | error_responses(*_INFERENCE_ERRORS),
    openapi_extra=_request_body(),
)
async def infer_with_version(request: Request, name: _Name, version: _Version) -> Response:
    """Runs the network of one version of a model on windows that the client has computed."""
    return await _respond(request, f"{name}@{version}")


async def _respond(request: Request, name: str) -> Response:
    inferences: Inferences = request.app.state.inferences
    return await inferences.respond(request, _model(request, name))


def _model(request: Request, name: str | None) -> ServedModel:
    pipeline: TrackPipeline = request.app.state.pipeline
    return pipeline.model(name)


def _metadata(request: Request, name: str) -> ModelMetadata:
    pipeline: TrackPipeline = request.app.state.pipeline
    served = pipeline.model(name)
    card = served.card
    entries = zip(card.inputs, served.features.shapes, strict=True)
    outputs = zip(card.outputs.kinds, card.output_shapes, strict=True)
    return ModelMetadata(
        name=card.name,
        versions=sorted(served.card.version for served in pipeline.models.values() if served.card.name == card.name),
        platform="onnxruntime_onnx",
        inputs=[TensorMetadata(name=entry.name, datatype=DATATYPE, shape=[-1, *shape]) for entry, shape in entries],
        outputs=[TensorMetadata(name=output, datatype=DATATYPE, shape=[-1, *shape]) for output, shape in outputs],
    )


def _readiness(request: Request, name: str) -> ModelReady:
    served = _model(request, name)
    _check_ready(served)
    return ModelReady(name=served.card.name, ready=True)


def _check_ready(served: ServedModel) -> None:
    """Check whether a model can run.

    Raises:
        ServiceError: ``model_unavailable`` or ``device_failed``.
    """
    served.check_available()
    if not served.engine.healthy:
        raise device_failed()
