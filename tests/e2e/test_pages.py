"""Models, probes, metrics, request ids, and the documentation, which loads nothing from other hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.recordings import wav_bytes
from tests.harness.server import Server, running_server
from wholetrack.errors import ErrorKind

pytestmark = pytest.mark.timing


@pytest.fixture
def openapi(server: Server) -> dict[str, Any]:
    document: dict[str, Any] = server.get("/openapi.json").json()
    return document


def test_models_are_served_with_their_cards(server: Server) -> None:
    (listed,) = [model for model in server.get("/v1/models").json()["models"] if model["default"]]
    assert listed["name"] == "wholetrack-crnn"
    assert listed["device"] == "cpu"
    shown = server.get("/v1/models/wholetrack-crnn").json()
    assert shown == listed
    card = shown["card"]
    assert len(card["labels"]) == 10
    assert card["windows"] == {
        "window_s": 3.0,
        "hop_s": 1.0,
        "frames": 39,
        "last_window": "align_to_end",
        "short_track": "repeat",
    }
    for protocol in ("random_split", "artist_filtered"):
        assert 0.5 < card["metrics"][protocol]["track_accuracy_summed"] < 1.0


def test_a_running_service_is_alive_and_ready(server: Server) -> None:
    assert server.get("/healthz").json() == {"status": "ok"}
    assert server.get("/readyz").json()["models"]["wholetrack-crnn"] == "cpu"


def test_metrics_count_windows_and_stages(server: Server, tune: NDArray[np.float32]) -> None:
    def windows() -> float:
        (value,) = re.findall(
            r'^wholetrack_windows_total\{model="wholetrack-crnn"\} (.+)$', server.get("/metrics").text, re.MULTILINE
        )
        return float(value)

    server.post(wav_bytes(tune, 22050))
    before = windows()
    server.post(wav_bytes(tune, 22050))
    assert windows() - before == 8
    text = server.get("/metrics").text
    for stage in ("receive", "decode", "features", "queue", "inference", "total"):
        assert f'wholetrack_stage_seconds_count{{stage="{stage}"}}' in text


def test_metrics_describe_the_engine(server: Server, tune: NDArray[np.float32]) -> None:
    def sample(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(server.get("/metrics").text)
        labels |= {"model": "wholetrack-crnn", "device": "cpu"}
        (value,) = [s.value for family in families for s in family.samples if (s.name, s.labels) == (name, labels)]
        return value

    before, runs = sample("wholetrack_batch_windows_sum"), sample("wholetrack_batch_windows_count")
    busy = sample("wholetrack_device_busy_seconds_total")
    server.post(wav_bytes(tune, 22050))
    assert sample("wholetrack_batch_windows_sum") - before == 8
    assert sample("wholetrack_batch_windows_count") > runs
    assert sample("wholetrack_batch_windows_bucket", le="+Inf") == sample("wholetrack_batch_windows_count")
    assert sample("wholetrack_batch_windows_bucket", le="16") == sample("wholetrack_batch_windows_count")
    assert sample("wholetrack_device_busy_seconds_total") > busy
    assert sample("wholetrack_device_healthy") == 1
    for none in ("device_failures_total", "device_replacements_total", "windows_waiting", "tracks_open"):
        assert sample(f"wholetrack_{none}") == 0


def test_the_same_bytes_are_decoded_once_if_the_cache_is_on(tmp_path: Path, tune: NDArray[np.float32]) -> None:
    with running_server(tmp_path, cache_mb=1) as server:
        first, again = (server.post(wav_bytes(tune, 22050), name).json() for name in ("one.wav", "other.wav"))
        other = server.post(wav_bytes(tune, 22050), hop_s=2).json()
        text = server.get("/metrics").text
    assert 'wholetrack_cache_lookups_total{outcome="hit"} 1.0' in text
    assert 'wholetrack_cache_lookups_total{outcome="miss"} 2.0' in text
    assert (first["track"].pop("filename"), again["track"].pop("filename")) == ("one.wav", "other.wav")
    assert first["timing_ms"]["inference"] > 0
    assert again["timing_ms"]["inference"] == 0
    for part in ("track", "model", "prediction", "sections", "windows", "warnings"):
        assert first[part] == again[part]
    assert other["windows"]["count"] < first["windows"]["count"]


def test_the_server_timing_header_equals_the_timing_of_the_body(server: Server, tune: NDArray[np.float32]) -> None:
    response = server.post(wav_bytes(tune, 22050))
    stages = dict(re.findall(r"(\w+);dur=([0-9.]+)", response.headers["Server-Timing"]))
    assert {stage: float(ms) for stage, ms in stages.items()} == response.json()["timing_ms"]


def test_the_documentation_page_loads_nothing_from_other_hosts(server: Server) -> None:
    page = server.get("/docs")
    assert page.status_code == 200
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("/"), link
        assert server.get(link).status_code == 200
    assert not re.findall(r"https?://(?!127\.0\.0\.1)", page.text)


def test_every_operation_parameter_and_response_is_described(openapi: dict[str, Any]) -> None:
    operations = [(path, verb, op) for path, verbs in openapi["paths"].items() for verb, op in verbs.items()]
    assert {(path, verb) for path, verb, _ in operations} == {
        ("/v1/predict", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{name}", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    }
    for path, _, operation in operations:
        assert operation["summary"], path
        assert operation["description"], path
        for parameter in operation.get("parameters", []):
            assert parameter["schema"].get("description") or parameter.get("description"), (path, parameter["name"])
        for status, response in operation["responses"].items():
            assert response["description"], (path, status)


def test_every_error_of_the_table_is_documented_with_an_example(openapi: dict[str, Any]) -> None:
    documented = {
        code: example["value"]
        for verbs in openapi["paths"].values()
        for operation in verbs.values()
        for response in operation["responses"].values()
        for code, example in response.get("content", {}).get("application/problem+json", {}).get("examples", {}).items()
    }
    undocumented = {
        # errors of paths without an operation
        ErrorKind.NOT_FOUND,
        ErrorKind.METHOD_NOT_ALLOWED,
        # only logged, because the client has disconnected
        ErrorKind.CLIENT_GONE,
        # only raised if API keys are configured, and while the service starts, when it does not accept connections
        ErrorKind.UNAUTHORISED,
        ErrorKind.NOT_READY,
    }
    assert set(documented) == {kind.code for kind in ErrorKind if kind not in undocumented}
    for code, example in documented.items():
        assert example["code"] == code
        assert example["status"] == ErrorKind[code.upper()].status


def test_predictions_and_their_example_match_the_schema(
    server: Server, openapi: dict[str, Any], tune: NDArray[np.float32]
) -> None:
    import jsonschema

    schema = {"$ref": "#/components/schemas/PredictionResponse", "components": openapi["components"]}
    for detail in ("none", "top", "full"):
        jsonschema.validate(server.post(wav_bytes(tune, 22050), windows=detail).json(), schema)
    (content,) = openapi["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"].values()
    jsonschema.validate(content["example"], schema)


def test_a_request_id_is_kept_or_generated(server: Server) -> None:
    generated = httpx.get(f"{server.url}/healthz").headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", generated)
    kept = httpx.get(f"{server.url}/healthz", headers={"X-Request-ID": generated}).headers["x-request-id"]
    assert kept == generated


@pytest.mark.parametrize(
    "given",
    ["x", "urn:" * 100 + "0" * 32, "{" + "0" * 32 + "}", "0" * 31 + "g", "0" * 33, "0123456789abcdef_0123456789abcde"],
)
def test_an_invalid_request_id_is_replaced(server: Server, given: str) -> None:
    response = httpx.get(f"{server.url}/healthz", headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_no_response_redirects_to_the_host_of_the_request(server: Server) -> None:
    response = httpx.get(f"{server.url}/v1/models/", headers={"Host": "elsewhere.example"})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
