"""A client of servers that speak the Open Inference Protocol over HTTP: Triton, MLServer, KServe, or this service.

The protocol [1]_ and its extension for binary data [2]_ describe the requests.

.. [1] https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
.. [2] https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from wholetrack.inference.worker import UnreachableError

_JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
_DATATYPE = "FP32"
_BINARY_EXTENSION = "binary_tensor_data"
_CONNECT_TIMEOUT_S = 5.0
# Not the server but something in front of it, or a server that starts, stops, or has too much to do.
_UNREACHABLE = frozenset({429, 502, 503, 504})
_MAX_DETAIL = 200

Tensors = Mapping[str, NDArray[np.float32]]


class ProtocolError(Exception):
    """A server refused a request, or its response does not follow the protocol."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says about itself.

    Attributes:
        name: Name of the program.
        accepts_binary: Whether values may follow the JSON.
    """

    name: str
    accepts_binary: bool


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The inputs and outputs of a model on a server.

    Attributes:
        inputs: Shape of each input by its name, without the first axis.
        outputs: Shape of each output by its name, without the first axis.
    """

    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]


class OpenInferenceClient:
    """Sends requests to one server. Several threads may use it at the same time.

    Args:
        url: Address of the server, without the path ``/v2``.
        key: Sent as a bearer token; None for none.
        transport: Sends the requests; None for the network.
    """

    def __init__(self, url: str, *, key: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=url, headers=headers, transport=transport, follow_redirects=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def server(self, *, timeout_s: float) -> ServerInfo:
        """Return what the server says about itself.

        Raises:
            UnreachableError: If it does not respond.
            ProtocolError: If it does not speak the protocol.
        """
        found = self._json(self._send("GET", "/v2", timeout_s=timeout_s))
        extensions = found.get("extensions", ())
        return ServerInfo(str(found.get("name", "")), isinstance(extensions, list) and _BINARY_EXTENSION in extensions)

    def model(self, name: str, version: str, *, timeout_s: float) -> ModelInfo:
        """Return the inputs and outputs of a version of a model.

        Raises:
            UnreachableError: If the server does not respond.
            ProtocolError: If it does not serve the model.
        """
        found = self._json(self._send("GET", f"/v2/models/{name}/versions/{version}", timeout_s=timeout_s))
        return ModelInfo(_shapes(found, "inputs"), _shapes(found, "outputs"))

    def infer(
        self, name: str, version: str, inputs: Tensors, outputs: Sequence[str], *, binary: bool, timeout_s: float
    ) -> list[NDArray[np.float32]]:
        """Run a version of a model.

        Args:
            name: Name of the model.
            version: Its version.
            inputs: Values by name, ``[n, *shape]``.
            outputs: Names of the wanted outputs.
            binary: Whether values follow the JSON, in both directions.
            timeout_s: Time limit, in seconds.

        Returns:
            The values of the outputs in this order, ``[n, *shape]``.

        Raises:
            UnreachableError: If the server does not respond.
            ProtocolError: If it refuses the request, or its response does not follow the protocol.
        """
        document = {
            "inputs": [_input(tensor, values, binary=binary) for tensor, values in inputs.items()],
            "outputs": [{"name": output, "parameters": {"binary_data": binary}} for output in outputs],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        if binary:
            headers = {"Content-Type": "application/octet-stream", _JSON_LENGTH_HEADER: str(len(text))}
            text = b"".join((text, *(np.ascontiguousarray(values, "<f4").tobytes() for values in inputs.values())))
        path = f"/v2/models/{name}/versions/{version}/infer"
        response = self._send("POST", path, content=text, headers=headers, timeout_s=timeout_s)
        found = _outputs(self._json(response), response)
        n_rows = len(next(iter(inputs.values())))
        for output in outputs:
            if output not in found or len(found[output]) != n_rows:
                raise ProtocolError(f"the response has no output {output!r} for {n_rows} windows")
        return [found[output] for output in outputs]

    def _send(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S))
        try:
            response = self._client.request(method, path, timeout=timeout, content=content, headers=headers)
        except httpx.TransportError as error:
            raise UnreachableError(f"no response from {self._client.base_url} ({error!r})") from error
        if response.status_code in _UNREACHABLE:
            raise UnreachableError(f"{self._client.base_url} responds with the status {response.status_code}")
        if response.status_code != httpx.codes.OK:
            detail = response.text[:_MAX_DETAIL]
            raise ProtocolError(f"{method} {path}: the status {response.status_code}, {detail!r}")
        return response

    @staticmethod
    def _json(response: httpx.Response) -> dict[str, Any]:
        length = response.headers.get(_JSON_LENGTH_HEADER)
        try:
            document = json.loads(response.content[: int(length)] if length else response.content)
        except ValueError as error:
            raise ProtocolError("the response is no JSON") from error
        if not isinstance(document, dict):
            raise ProtocolError("the response is no JSON object")
        return document


def _input(name: str, values: NDArray[np.float32], *, binary: bool) -> dict[str, Any]:
    tensor: dict[str, Any] = {"name": name, "shape": list(values.shape), "datatype": _DATATYPE}
    if binary:
        return tensor | {"parameters": {"binary_data_size": 4 * values.size}}
    return tensor | {"data": values.ravel().tolist()}


def _shapes(document: Mapping[str, Any], key: str) -> dict[str, tuple[int, ...]]:
    try:
        return {tensor["name"]: tuple(int(size) for size in tensor["shape"][1:]) for tensor in document[key]}
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the {key} of the model are not described as the protocol requires") from error


def _outputs(document: Mapping[str, Any], response: httpx.Response) -> dict[str, NDArray[np.float32]]:
    """Return all outputs of a response by name."""
    found: dict[str, NDArray[np.float32]] = {}
    position = int(response.headers.get(_JSON_LENGTH_HEADER) or len(response.content))
    try:
        for tensor in document["outputs"]:
            size = tensor.get("parameters", {}).get("binary_data_size")
            if size is None:
                values = np.array(tensor["data"], dtype=np.float32)
            else:
                values = np.frombuffer(response.content[position : position + size], dtype="<f4")
                position += size
            found[tensor["name"]] = values.reshape(tensor["shape"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProtocolError("the outputs of the response do not follow the protocol") from error
    return found
