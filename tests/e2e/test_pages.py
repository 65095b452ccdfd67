"""Models, probes, metrics, request ids, and the documentation, which loads nothing from other hosts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server, running_server
from wholetrack.api.formats import ResponseFormat
from wholetrack.errors import ErrorKind

pytestmark = pytest.mark.timing


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with a path prefix."""
    with running_server(tmp_path_factory.mktemp("prefixed"), root_path="/music/") as started:
        yield started


@pytest.fixture
def openapi(server: Server) -> dict[str, Any]:
    document: dict[str, Any] = server.get("/openapi.json").json()
    return document


def test_models_are_served_with_their_cards(server: Server) -> None:
    (listed,) = [model for model in server.get("/v1/models").json()["models"] if model["default"]]
    assert listed["name"] == "wholetrack-crnn"
    assert listed["device"] == "cpu"
    shown = server.get("/v1/models/wholetrack-crnn").json()
    card = shown.pop("card")
    assert shown == listed
    assert (listed["labels"], listed["summary"]) == (card["labels"], card["summary"])
    card = server.get("/v1/models/wholetrack-crnn-gtzan").json()["card"]
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


def test_the_stages_of_a_request_add_up_to_no_more_than_its_total(server: Server, tune: NDArray[np.float32]) -> None:
    recording = wav_bytes(np.tile(tune, 20), 22050)
    with ThreadPoolExecutor(4) as clients:
        responses = list(clients.map(lambda _: server.post(recording, windows="none"), range(8)))
    for response in responses:
        timing = response.json()["timing_ms"]
        total = timing.pop("total")
        # Each time is rounded.
        assert sum(timing.values()) <= total + 0.01
        assert min(timing["decode"], timing["features"], timing["inference"]) > 0


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
        ("/v1/live", "get"),
        ("/v1/similarity", "post"),
        ("/v2", "get"),
        ("/v2/health/live", "get"),
        ("/v2/health/ready", "get"),
        ("/v2/models/{name}", "get"),
        ("/v2/models/{name}/ready", "get"),
        ("/v2/models/{name}/infer", "post"),
        ("/v2/models/{name}/versions/{version}", "get"),
        ("/v2/models/{name}/versions/{version}/ready", "get"),
        ("/v2/models/{name}/versions/{version}/infer", "post"),
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
    contents = openapi["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]
    assert set(contents) == {offered.media_type for offered in ResponseFormat}
    jsonschema.validate(contents["application/json"]["example"], schema)


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


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/wholetrack-crnn", "/healthz", "/docs", "/openapi.json"])
def test_a_trailing_slash_makes_no_difference(server: Server, path: str) -> None:
    plain, slash = server.get(path), server.get(f"{path}/")
    assert (plain.status_code, slash.status_code) == (200, 200)
    assert slash.content == plain.content


def test_a_prediction_is_posted_with_or_without_a_trailing_slash(server: Server) -> None:
    assert httpx.post(f"{server.url}/v1/predict/", content=b"no recording").json()["code"] == "unsupported_media"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that clients know by name."""
    with running_server(tmp_path_factory.mktemp("named"), allowed_hosts='["music.example"]') as started:
        yield started


def test_the_start_page_loads_nothing_from_other_hosts(named: Server) -> None:
    response = httpx.get(named.url, headers={"Host": "music.example"})
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    (nonce,) = re.findall(r'name="csp-nonce" content="([^"]+)"', response.text)
    assert f"'nonce-{nonce}'" in policy
    assert nonce not in httpx.get(named.url, headers={"Host": "music.example"}).text
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", response.text)
    assert [link for link in links if not link.startswith(("/", "#", "data:,"))] == []
    files = [link for link in links if link.startswith("/page/")]
    assert len(files) == 2
    for link in files:
        found = httpx.get(named.url + link)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/page/", "/page/nothing.js", "/page/index.html", "/page/..%2fpredict.py"])
def test_only_the_files_of_the_page_are_served(server: Server, path: str) -> None:
    assert server.get(path).json()["code"] == "not_found"


def test_the_files_of_the_page_have_the_listed_checksums() -> None:
    folder = PROJECT / "service" / "wholetrack" / "api" / "page"
    listed = [line.split() for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert {path.name for path in folder.iterdir()} == {"SHA256SUMS", *(name for _, name in listed)}
    for digest, name in listed:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "{url}/v1/predict"),
        ({"Host": "music.example"}, "http://music.example/v1/predict"),
        ({"Host": "music.example", "X-Forwarded-Proto": "https"}, "https://music.example/v1/predict"),
        ({"X-Forwarded-Host": "music.example:8443, proxy"}, "http://music.example:8443/v1/predict"),
        ({"Host": "music.example", "X-Forwarded-Proto": "gopher"}, "http://music.example/v1/predict"),
        ({"X-Forwarded-Host": "[2001:db8::1]:80"}, "http://[2001:db8::1]:80/v1/predict"),
        ({"X-Forwarded-Host": "<script>"}, "http://127.0.0.1:8000/v1/predict"),
    ],
)
def test_the_command_on_the_page_has_the_address_of_the_page(
    named: Server, headers: dict[str, str], expected: str
) -> None:
    document = httpx.get(f"{named.url}/openapi.json", headers=headers).json()
    assert f"`curl -F file=@song.mp3 {expected.format(url=named.url)}`" in document["info"]["description"]


@pytest.mark.parametrize("prefix", ["/music", ""], ids=["kept by the proxy", "removed by the proxy"])
def test_the_service_may_have_a_path_prefix(prefixed: Server, prefix: str) -> None:
    url = f"{prefixed.url}{prefix}"
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert httpx.get(f"{url}/v1/models/").status_code == 200
    assert httpx.get(f"{url}/nowhere").json()["code"] == "not_found"
    page = httpx.get(f"{url}/docs").text
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(links) >= 3
    start = re.findall(r"""(?:src|href)=["'](/[^"']+)""", httpx.get(f"{url}/").text)
    for link in [*links, *start, *re.findall(r"url: '([^']+)'", page)]:
        assert link.startswith("/music/")
        assert httpx.get(prefixed.url + prefix + link.removeprefix("/music")).status_code == 200
    document = httpx.get(f"{url}/openapi.json").json()
    assert document["servers"] == [{"url": "/music"}]
    assert f"{prefixed.url}/music/v1/predict" in document["info"]["description"]


def test_failed_predictions_are_counted_under_a_path_prefix(prefixed: Server) -> None:
    for prefix in ("", "/music"):
        httpx.post(f"{prefixed.url}{prefix}/v1/predict", content=b"no recording")
    assert 'wholetrack_predictions_total{code="unsupported_media"} 2.0' in prefixed.get("/metrics").text


def test_only_clients_that_accept_gzip_get_it(server: Server, tune: NDArray[np.float32]) -> None:
    def post(accepted: str) -> httpx.Response:
        headers = {"Accept-Encoding": accepted}
        return httpx.post(f"{server.url}/v1/predict", content=wav_bytes(tune, 22050), headers=headers, timeout=60)

    for accepted in ("gzip", "br;q=1.0, gzip;q=0.5"):
        response = post(accepted)
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["vary"] == "Accept, Accept-Encoding"
        assert response.num_bytes_downloaded < len(response.content)
        assert response.json()["windows"]["count"] == 8
    for accepted in ("identity", "br", "gzip;q=0", "gzip; q=0.0, identity"):
        response = post(accepted)
        assert "content-encoding" not in response.headers
        assert response.headers["vary"] == "Accept, Accept-Encoding"
    assert "content-encoding" not in server.get("/healthz").headers


def test_only_requests_other_than_probes_are_logged(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        for path in ("/healthz", "/readyz", "/readyz/", "/v1/models"):
            server.get(path)
    assert re.findall(r'"message": "(GET [^"]+)"', server.log.read_text()) == ["GET /v1/models 200"]


def test_metrics_count_what_is_predicted(server: Server, tune: NDArray[np.float32]) -> None:
    def samples() -> dict[str, float]:
        families = text_string_to_metric_families(server.get("/metrics").text)
        names = ("wholetrack_predicted_genres_total", "wholetrack_domain_total", "wholetrack_confidence_sum")
        return {
            f"{s.name} {s.labels.get('genre') or s.labels.get('domain')}": s.value
            for family in families
            for s in family.samples
            if s.name in names and s.labels["model"] == "wholetrack-crnn"
        }

    content = server.post(wav_bytes(tune, 22050)).json()["prediction"]
    before = samples()
    server.post(wav_bytes(tune, 22050))
    server.post(wav_bytes(tune, 22050), taxonomy="gtzan")
    grown = {name: value - before[name] for name, value in samples().items() if value != before[name]}
    assert grown == {
        f"wholetrack_predicted_genres_total {content['summed_score']['genre']}": 1,
        "wholetrack_domain_total outside": 2,
        "wholetrack_confidence_sum None": pytest.approx(content["confidence"]),
    }
