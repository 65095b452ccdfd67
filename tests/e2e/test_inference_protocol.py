"""The Open Inference Protocol: Triton's own client gets what the network computes, and an error for anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.harness.server import Server, running_server
from wholetrack.contracts import Rows
from wholetrack.inference.bundle import load_bundle
from wholetrack.pipeline import Pipeline

MODELS = ["wholetrack-crnn", "wholetrack-crnn-gtzan", "deepsound-crnn"]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[InferenceServerClient]:
    with closing(InferenceServerClient(server.url.removeprefix("http://"))) as client:
        yield client


def windows_of(pipeline: Pipeline, model: str, n_windows: int) -> Rows:
    rng = np.random.default_rng(n_windows)
    shapes = pipeline.model(model).features.shapes
    return Rows(tuple(rng.random((n_windows, *shape), dtype=np.float32) for shape in shapes))


def expected_of(pipeline: Pipeline, model: str, windows: Rows) -> dict[str, NDArray[np.float32]]:
    served = pipeline.model(model)
    (session, *_) = served.engine.classifiers  # type: ignore[union-attr]
    parts = [session.run(windows[i : i + 4]) for i in range(0, len(windows), 4)]
    return dict(zip(served.card.outputs.names, Rows.joined(parts).arrays, strict=True))


def inputs_of(pipeline: Pipeline, model: str, windows: Rows, *, binary: bool) -> list[InferInput]:
    found = []
    for entry, array in zip(pipeline.model(model).card.inputs, windows.arrays, strict=True):
        found.append(InferInput(entry.name, array.shape, "FP32"))
        found[-1].set_data_from_numpy(array, binary_data=binary)
    return found


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("model", MODELS)
def test_the_client_of_triton_gets_the_outputs_of_the_network(
    client: InferenceServerClient, pipeline: Pipeline, model: str, *, binary: bool
) -> None:
    windows = windows_of(pipeline, model, 2)
    card = pipeline.model(model).card
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in reversed(card.outputs.names)]
    result = client.infer(model, inputs_of(pipeline, model, windows, binary=binary), outputs=outputs, request_id="7")
    expected = expected_of(pipeline, model, windows)
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (model, card.version, "7")
    assert [output["name"] for output in response["outputs"]] == list(reversed(expected))
    for name, values in expected.items():
        np.testing.assert_allclose(result.as_numpy(name), values, atol=1e-4)


def test_more_windows_than_a_batch_are_returned_in_order(client: InferenceServerClient, pipeline: Pipeline) -> None:
    model = "wholetrack-crnn-gtzan"
    windows = windows_of(pipeline, model, 300)
    result = client.infer(model, inputs_of(pipeline, model, windows, binary=True))
    for name, values in expected_of(pipeline, model, windows).items():
        np.testing.assert_allclose(result.as_numpy(name), values, atol=1e-4)


def test_metadata_and_readiness(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("wholetrack-crnn")
    assert client.is_model_ready("wholetrack-crnn", "2")
    assert not client.is_model_ready("wholetrack-crnn", "77")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    found = client.get_model_metadata("wholetrack-crnn")
    assert found["versions"] == ["2"]
    assert [entry["shape"] for entry in found["inputs"]] == [[-1, 39, 128], [-1, 288, 112]]
    assert {entry["datatype"] for entry in (*found["inputs"], *found["outputs"])} == {"FP32"}


def test_errors_have_the_text_where_the_protocol_expects_it(client: InferenceServerClient, pipeline: Pipeline) -> None:
    windows = inputs_of(
        pipeline, "wholetrack-crnn-gtzan", windows_of(pipeline, "wholetrack-crnn-gtzan", 1), binary=True
    )
    with pytest.raises(InferenceServerException, match="Choose one of the models served"):
        client.infer("none", windows)
    with pytest.raises(InferenceServerException, match=r"inputs: send each of spectrum, music once"):
        client.infer("wholetrack-crnn", windows)


def tensor(**changes: Any) -> dict[str, Any]:
    name = load_bundle(Path("models/wholetrack-crnn-gtzan/1")).card.inputs[0].name
    return {"name": name, "shape": [1, 39, 128], "datatype": "FP32", "data": [0.0] * 39 * 128} | changes


def infer(server: Server, content: Any, **headers: str) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.post(f"{server.url}/v2/models/wholetrack-crnn-gtzan/infer", content=body, headers=headers, timeout=60)


@pytest.mark.parametrize(
    ("content", "code", "detail"),
    [
        (b"", "malformed_request", "Send a JSON object"),
        (b"[1", "malformed_request", "Send a JSON object"),
        ([], "invalid_parameter", "body: input should be"),
        ({}, "invalid_parameter", "inputs: field required"),
        ({"inputs": []}, "invalid_parameter", "inputs: list should have at least 1 item"),
        ({"inputs": [tensor(), tensor()]}, "invalid_parameter", "inputs: send each of"),
        ({"inputs": [tensor(name="other")]}, "invalid_parameter", "inputs: send each of"),
        ({"inputs": [tensor(datatype="FP16")]}, "invalid_parameter", "inputs.0.datatype"),
        ({"inputs": [tensor(shape=[1, 128, 39])]}, "invalid_parameter", r"inputs.0.shape: it must be [n, 39, 128]"),
        ({"inputs": [tensor(shape=[0, 39, 128], data=[])]}, "invalid_parameter", "inputs.0.shape"),
        ({"inputs": [tensor(shape=[2, 39, 128])]}, "invalid_parameter", "needs 9984 values, not 4992"),
        ({"inputs": [tensor(data=None)]}, "invalid_parameter", "inputs.0.data: missing"),
        ({"inputs": [tensor(data=[[1.0], [2.0, 3.0]])]}, "invalid_parameter", "different lengths"),
        ({"inputs": [tensor(data=["1.0"] * 4992)]}, "invalid_parameter", "must consist of numbers"),
        ({"inputs": [tensor(data=[True] * 4992)]}, "invalid_parameter", "must consist of numbers"),
        ({"inputs": [tensor(data=[1e39] * 4992)]}, "invalid_parameter", "must be finite"),
        ({"inputs": [tensor(data=[10**400] * 4992)]}, "invalid_parameter", "must"),
        (
            {"inputs": [tensor(parameters={"binary_data_size": 19968})]},
            "invalid_parameter",
            "does not contain 19968 bytes",
        ),
        ({"inputs": [tensor()], "outputs": [{"name": "other"}]}, "invalid_parameter", "outputs.0.name"),
    ],
)
def test_invalid_requests_are_explained(server: Server, content: Any, code: str, detail: str) -> None:
    response = infer(server, content)
    assert response.json()["code"] == code, response.text
    assert detail in response.json()["detail"]
    assert response.json()["error"] == response.json()["detail"]


@pytest.mark.parametrize("length", ["-1", "1_0", "99999999", "x", ""])
def test_an_impossible_size_of_the_json_is_refused(server: Server, length: str) -> None:
    response = infer(server, {"inputs": [tensor()]}, **{"Inference-Header-Content-Length": length})
    assert response.json()["code"] == "malformed_request"


def test_values_that_no_input_states_are_refused(server: Server) -> None:
    text = json.dumps({"inputs": [tensor()]}).encode()
    response = infer(server, text + bytes(4), **{"Inference-Header-Content-Length": str(len(text))})
    assert "4 bytes follow the values" in response.json()["detail"]


def test_a_large_body_is_refused_before_it_is_read(server: Server) -> None:
    response = infer(server, bytes((8 << 20) + 1))
    assert (response.status_code, response.json()["code"]) == (413, "upload_too_large")


def test_a_key_is_required_like_everywhere_else(tmp_path: Path) -> None:
    with running_server(tmp_path, api_keys="alice:alices-key-of-enough-characters") as server:
        host = server.url.removeprefix("http://")
        with closing(InferenceServerClient(host)) as client:
            with pytest.raises(InferenceServerException, match="Send a valid API key"):
                client.get_server_metadata()
            headers = {"Authorization": "Bearer alices-key-of-enough-characters"}
            assert client.get_server_metadata(headers=headers)["name"] == "wholetrack"
