"""Tensors in bodies of the Open Inference Protocol: as JSON, or as raw values behind the JSON.

The layout of both is described by the protocol [1]_ and its extension for binary data [2]_.

.. [1] https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
.. [2] https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from wholetrack.contracts import Rows
from wholetrack.errors import ErrorKind, ServiceError

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
"""Header with the size of the JSON in bytes, if raw values follow it."""

DATATYPE: Literal["FP32"] = "FP32"
"""The protocol's name of the only number format of inputs and outputs."""

_MAX_TENSORS = 16


class InputParameters(BaseModel):
    """Parameters of an input."""

    binary_data_size: int | None = Field(
        default=None, ge=0, description="Size in bytes of the values behind the JSON, little-endian and row by row."
    )


class InputTensor(BaseModel):
    """One input, for a number of windows."""

    name: str = Field(description="Name of the input in model.json.")
    shape: list[int] = Field(
        min_length=1,
        max_length=8,
        description="Number of windows, frames per window, and mel bands.",
        examples=[[1, 39, 128]],
    )
    datatype: Literal["FP32"] = Field(description="Number format.")
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(
        default=None, description="The values row by row, as a flat or a nested list; absent if they follow the JSON."
    )


class OutputParameters(BaseModel):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(
        default=None, description="Whether the values follow the JSON. Default: `binary_data_output` of the request."
    )


class RequestedOutput(BaseModel):
    """An output that the response should contain."""

    name: str = Field(description="Name of the output in model.json.")
    parameters: OutputParameters = OutputParameters()


class RequestParameters(BaseModel):
    """Parameters of a request."""

    binary_data_output: bool = Field(default=False, description="Whether the values of outputs follow the JSON.")


class InferenceRequest(BaseModel):
    """Windows to classify. Anything else that the protocol defines is ignored."""

    id: str | None = Field(default=None, max_length=256, description="Returned with the response.")
    parameters: RequestParameters = RequestParameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=_MAX_TENSORS, description="All inputs of the model.")
    outputs: list[RequestedOutput] | None = Field(
        default=None, min_length=1, max_length=_MAX_TENSORS, description="Default: all outputs of the model."
    )


class OutputTensorParameters(BaseModel):
    """Parameters of an output."""

    binary_data_size: int = Field(description="Size in bytes of the values behind the JSON.")


class OutputTensor(BaseModel):
    """One output, for all windows of the request."""

    name: str
    datatype: Literal["FP32"]
    shape: list[int]
    parameters: OutputTensorParameters | None = None
    data: list[float] | None = Field(default=None, description="The values row by row.")


class InferenceResponse(BaseModel):
    """What the network returned."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def parse_request(body: bytes, json_length: str | None) -> tuple[InferenceRequest, memoryview]:
    """Return the JSON of a request, and what follows it.

    Args:
        body: The whole body.
        json_length: The header :data:`JSON_LENGTH_HEADER`; None if there is none.

    Raises:
        ServiceError: ``malformed_request`` or ``invalid_parameter``.
    """
    view = memoryview(body)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdigit() and int(json_length) <= len(body)):
            raise ServiceError(
                ErrorKind.MALFORMED_REQUEST, f"The header {JSON_LENGTH_HEADER} must not exceed the size of the body."
            )
        view = view[: int(json_length)]
    try:
        return InferenceRequest.model_validate_json(bytes(view)), memoryview(body)[len(view) :]
    except ValidationError as error:
        first: ErrorDetails = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ServiceError(ErrorKind.MALFORMED_REQUEST, "Send a JSON object with the field inputs.") from error
        place = ".".join(map(str, first["loc"])) or "body"
        raise _invalid(f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def input_rows(
    request: InferenceRequest, binary: memoryview, shapes: Mapping[str, tuple[int, ...]], *, model: str
) -> Rows:
    """Return the inputs of a request, in the order of ``shapes``.

    Args:
        request: The JSON of the request.
        binary: What follows it.
        shapes: Shape of one row of each input of the model, by name.
        model: Name of the model, for errors.

    Raises:
        ServiceError: ``invalid_parameter`` if they do not match the model.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for i, tensor in enumerate(request.inputs):
        if tensor.name not in shapes or tensor.name in found:
            raise _invalid(f"inputs: send each of {', '.join(shapes)} once, which are the inputs of {model}")
        n_windows, expected = tensor.shape[0], shapes[tensor.name]
        if n_windows < 1 or tuple(tensor.shape[1:]) != expected:
            raise _invalid(f"inputs.{i}.shape: it must be [n, {', '.join(map(str, expected))}] with n at least 1")
        size = tensor.parameters.binary_data_size
        if size is None:
            values = _from_json(tensor.data, place=f"inputs.{i}.data")
        else:
            values, binary = _from_bytes(binary[:size], size, place=f"inputs.{i}"), binary[size:]
        if len(values) != n_windows * math.prod(expected):
            raise _invalid(f"inputs.{i}: the shape needs {n_windows * math.prod(expected)} values, not {len(values)}")
        if not np.isfinite(values).all():
            raise _invalid(f"inputs.{i}: all values must be finite")
        found[tensor.name] = values.reshape(n_windows, *expected)
    if missing := shapes.keys() - found.keys():
        raise _invalid(f"inputs: {', '.join(sorted(missing))} of {model} is missing")
    if len({len(values) for values in found.values()}) > 1:
        raise _invalid("inputs: all must have the same number of windows")
    if binary:
        raise _invalid(f"inputs: {len(binary)} bytes follow the values that binary_data_size states")
    return Rows(tuple(found[name] for name in shapes))


def render_response(
    request: InferenceRequest, outputs: dict[str, NDArray[np.float32]], *, model: str, version: str
) -> tuple[bytes, int | None]:
    """Return the body of a response, and the size of its JSON if values follow it.

    Args:
        request: The JSON of the request.
        outputs: All outputs of the model, by name.
        model: Name of the model.
        version: Version of the model.

    Raises:
        ServiceError: ``invalid_parameter`` if an output was requested that the model does not have.
    """
    check_outputs(request, list(outputs), model=model)
    wanted = request.outputs or [RequestedOutput(name=name) for name in outputs]
    tensors, binary = [], []
    for output in wanted:
        values = np.ascontiguousarray(outputs[output.name], dtype="<f4")
        tensor: dict[str, Any] = {"name": output.name, "datatype": DATATYPE, "shape": list(values.shape)}
        is_binary = output.parameters.binary_data
        if request.parameters.binary_data_output if is_binary is None else is_binary:
            binary.append(values.tobytes())
            tensor["parameters"] = {"binary_data_size": values.nbytes}
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": tensors}
    if request.id is not None:
        document["id"] = request.id
    text = json.dumps(document, separators=(",", ":")).encode()
    return b"".join((text, *binary)), len(text) if binary else None


def check_outputs(request: InferenceRequest, names: Sequence[str], *, model: str) -> None:
    """Check that a model has the requested outputs.

    Raises:
        ServiceError: ``invalid_parameter``.
    """
    for i, output in enumerate(request.outputs or []):
        if output.name not in names:
            raise _invalid(f"outputs.{i}.name: the outputs of {model} are {', '.join(names)}")


def _from_json(data: list[Any] | None, *, place: str) -> NDArray[np.float32]:
    if data is None:
        raise _invalid(f"{place}: missing, and binary_data_size as well")
    try:
        values = np.array(data)
    except ValueError as error:
        raise _invalid(f"{place}: the nested lists have different lengths") from error
    if values.dtype.kind not in "iuf":
        raise _invalid(f"{place}: it must consist of numbers")
    with np.errstate(over="ignore"):
        return values.astype(np.float32).ravel()


def _from_bytes(content: memoryview, size: int, *, place: str) -> NDArray[np.float32]:
    if len(content) < size or size % 4:
        raise _invalid(f"{place}: the body does not contain {size} bytes of {DATATYPE} for it")
    return np.frombuffer(content, dtype="<f4")


def _invalid(problem: str) -> ServiceError:
    return ServiceError(ErrorKind.INVALID_PARAMETER, f"{problem}.")
