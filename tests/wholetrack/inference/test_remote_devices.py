"""Networks on a server of the Open Inference Protocol: one that returns what the network yields, and faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from wholetrack.contracts import Rows
from wholetrack.errors import StartupError, UnavailableModelError
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundle
from wholetrack.inference.open_inference import OpenInferenceClient, ProtocolError
from wholetrack.inference.remote_devices import RemoteDevices
from wholetrack.inference.session import open_session
from wholetrack.inference.worker import UnreachableError
from wholetrack.settings import DeviceChoice, Settings

HEADER = "Inference-Header-Content-Length"
MODELS = [("wholetrack-crnn", "2"), ("wholetrack-crnn-gtzan", "1"), ("deepsound-crnn", "1")]
Answer = Callable[[httpx.Request], httpx.Response]


class NetworkServer:
    """Responds as Triton does: with the outputs of the network under their names in the ONNX file.

    Args:
        bundle: The only model.
        binary: Whether it supports values behind the JSON.

    Attributes:
        answer: Responds instead; None for the server itself.
        largest: Largest number of windows in a request.
    """

    def __init__(self, bundle: Bundle, *, binary: bool) -> None:
        self._card, self._binary = bundle.card, binary
        self._session = ort.InferenceSession(bundle.onnx, providers=["CPUExecutionProvider"])
        self.answer: Answer | None = None
        self.largest = 0
        self.keys: set[str | None] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.keys.add(request.headers.get("Authorization"))
        if self.answer:
            return self.answer(request)
        path = f"/v2/models/{self._card.name}/versions/{self._card.version}"
        if request.url.path == "/v2":
            extensions = ["binary_tensor_data"] if self._binary else []
            return httpx.Response(200, json={"name": "triton", "version": "2", "extensions": extensions})
        if request.url.path == path:
            return httpx.Response(200, json=self.metadata())
        if request.url.path == f"{path}/infer":
            return self._infer(request)
        return httpx.Response(404, json={"error": "unknown model"})

    def metadata(self) -> dict[str, Any]:
        return {
            "name": self._card.name,
            "inputs": [
                {"name": node.name, "datatype": "FP32", "shape": [-1, *node.shape[1:]]}
                for node in self._session.get_inputs()
            ],
            "outputs": [
                {"name": node.name, "datatype": "FP32", "shape": [-1, *node.shape[1:]]}
                for node in self._session.get_outputs()
            ],
        }

    def _infer(self, request: httpx.Request) -> httpx.Response:
        length = int(request.headers.get(HEADER, len(request.content)))
        document, values = json.loads(request.content[:length]), request.content[length:]
        feed = {}
        for tensor in document["inputs"]:
            if self._binary:
                size = tensor["parameters"]["binary_data_size"]
                array, values = np.frombuffer(values[:size], "<f4"), values[size:]
            else:
                array = np.array(tensor["data"], "f4")
            feed[tensor["name"]] = array.reshape(tensor["shape"])
        assert not values
        self.largest = max(self.largest, *(len(array) for array in feed.values()))
        # In another order than that of the request, which the protocol allows.
        names = [output["name"] for output in document["outputs"]][::-1]
        tensors, binary = [], b""
        for name, array in zip(names, self._session.run(names, feed), strict=True):
            tensor = {"name": name, "datatype": "FP32", "shape": array.shape}
            if self._binary:
                tensors.append(tensor | {"parameters": {"binary_data_size": array.nbytes}})
                binary += array.tobytes()
            else:
                tensors.append(tensor | {"data": array.ravel().tolist()})
        text = json.dumps({"outputs": tensors}).encode()
        headers = {HEADER: str(len(text))} if self._binary else {}
        return httpx.Response(200, content=text + binary, headers=headers)


@contextmanager
def devices_of(server: Answer, *, start_timeout_s: float = 0.0) -> Iterator[RemoteDevices]:
    client = OpenInferenceClient("http://server", key="secret", transport=httpx.MockTransport(server))
    try:
        yield RemoteDevices(client, Settings(device_timeout_s=2.0), start_timeout_s=start_timeout_s)
    finally:
        client.close()


def bundle_of(name: str, version: str) -> Bundle:
    return load_bundle(BUILT_IN_MODELS / name / version)


@pytest.fixture(scope="module")
def small() -> Bundle:
    return bundle_of("wholetrack-crnn-gtzan", "1")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize(("name", "version"), MODELS)
def test_outputs_are_those_of_the_network_here(name: str, version: str, *, binary: bool) -> None:
    bundle = bundle_of(name, version)
    server = NetworkServer(bundle, binary=binary)
    with devices_of(server) as devices:
        opened = devices.open(bundle)
        session, here = opened.sessions[0], open_session(bundle, Settings(device=DeviceChoice.CPU))
        windows = Rows.joined([bundle.golden.windows, bundle.golden.windows])[: session.max_batch]
        found = session.run(windows)
    expected = Rows.joined([here.run(windows[i : i + 1]) for i in range(len(windows))])
    for ours, theirs in zip(found.arrays, expected.arrays, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (session.device, session.precision) == ("remote", "float32")
    assert server.keys == {"Bearer secret"}


def test_a_request_stays_below_the_limit_of_this_service(small: Bundle) -> None:
    server = NetworkServer(small, binary=True)
    with devices_of(server) as devices:
        session = devices.open(small).sessions[0]
        session.run(Rows.zeros(session.max_batch, session.window_shapes))
    assert server.largest == session.max_batch
    assert 7 << 20 < session.max_batch * 4 * 39 * 128 < 8 << 20


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_busy_is_asked_again(small: Bundle, status: int) -> None:
    server = NetworkServer(small, binary=True)
    with devices_of(server) as devices:
        session = devices.open(small).sessions[0]
        responses = iter([httpx.Response(status), httpx.Response(status)])

        def busy(request: httpx.Request) -> httpx.Response:
            if (response := next(responses, None)) is not None:
                return response
            server.answer = None
            return server(request)

        server.answer = busy
        assert len(session.run(small.golden.windows[:1])) == 1


def _no_connection(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def test_a_server_that_is_gone_is_unreachable(small: Bundle) -> None:
    server = NetworkServer(small, binary=True)
    with devices_of(server) as devices:
        session = devices.open(small).sessions[0]
        server.answer = _no_connection
        with pytest.raises(UnreachableError, match=r"no response from http://server"):
            session.run(small.golden.windows[:1])


OK = {"name": "scores", "shape": [1, 10], "datatype": "FP32"}


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(400, json={"error": "no"}),
        httpx.Response(500, text="<html>"),
        httpx.Response(302, headers={"Location": "http://elsewhere"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"outputs": [OK | {"data": [0.1] * 9}]}),
        httpx.Response(200, json={"outputs": [OK | {"data": "text"}]}),
        httpx.Response(200, json={"outputs": [OK | {"parameters": {"binary_data_size": 40}}]}),
        httpx.Response(200, json={"outputs": [OK | {"data": [0.1] * 10, "name": "other"}]}),
        httpx.Response(200, json={"outputs": [{"data": [0.1] * 20, "shape": [2, 10], "name": "logits"}]}),
        httpx.Response(200, json={"outputs": 1}),
        httpx.Response(200, json={"outputs": []}, headers={HEADER: "x"}),
    ],
    ids=str,
)
def test_other_responses_are_errors_of_the_protocol(small: Bundle, response: httpx.Response) -> None:
    server = NetworkServer(small, binary=True)
    with devices_of(server) as devices:
        session = devices.open(small).sessions[0]
        server.answer = lambda _: response
        with pytest.raises(ProtocolError):
            session.run(small.golden.windows[:1])


def test_a_model_that_the_server_lacks_is_unavailable(small: Bundle) -> None:
    server = NetworkServer(small, binary=True)
    newer = replace(small, card=small.card.model_copy(update={"version": "7"}))
    with devices_of(server) as devices, pytest.raises(UnavailableModelError, match="status 404") as caught:
        devices.open(newer)
    assert caught.value.reason == "the server cannot run the network"


def test_a_model_with_other_inputs_is_unavailable(small: Bundle) -> None:
    server = NetworkServer(small, binary=True)
    metadata = server.metadata()
    metadata["inputs"][0]["shape"] = [-1, 40, 128]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/1"):
            return httpx.Response(200, json=metadata)
        return NetworkServer.__call__(unchanged, request)

    unchanged = NetworkServer(small, binary=True)
    server.answer = answer
    with devices_of(server) as devices, pytest.raises(UnavailableModelError, match="its inputs are"):
        devices.open(small)


def test_a_server_with_other_weights_is_noticed(small: Bundle) -> None:
    other = load_bundle(BUILT_IN_MODELS.parent / "tests" / "folds" / "fold-1" / "1")
    renamed = replace(other, card=other.card.model_copy(update={"name": small.card.name}))
    server = NetworkServer(renamed, binary=True)
    with devices_of(server) as devices, pytest.raises(UnavailableModelError, match="wrong outputs on remote"):
        devices.open(small)


def test_a_server_that_starts_later_is_waited_for(small: Bundle) -> None:
    server = NetworkServer(small, binary=True)
    attempts = []

    def starting(request: httpx.Request) -> httpx.Response:
        attempts.append(request)
        if len(attempts) < 3:
            return _no_connection(request)
        return server(request)

    with devices_of(starting, start_timeout_s=30.0) as devices:
        assert devices.open(small).sessions
    assert len(attempts) > 3


@pytest.mark.parametrize("answer", [_no_connection, lambda _: httpx.Response(404), lambda _: httpx.Response(200)])
def test_a_server_that_cannot_be_used_ends_the_start(answer: Answer) -> None:
    with pytest.raises(StartupError, match="WHOLETRACK_INFERENCE_URL"), devices_of(answer):
        pass
