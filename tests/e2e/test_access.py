"""API keys, security headers and CORS, and that secrets never appear in a response or a log."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.requests import assert_problem
from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server, running_server
from wholetrack.api.keys import Keys
from wholetrack.settings import Settings

pytestmark = pytest.mark.timing

_ALICE, _BOB = "alices-key-of-enough-characters", "bobs-key-of-enough-characters"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that requires API keys."""
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    digest = hashlib.sha256(_BOB.encode()).hexdigest()
    keys.write_text(f'[bob]\nsha256 = "{digest}"\nrequests_per_minute = 5\nconcurrent = 1\n')
    folder = tmp_path_factory.mktemp("closed")
    with running_server(folder, api_keys=f"alice:{_ALICE}", api_keys_file=keys) as started:
        yield started


@pytest.fixture
def song(tune: NDArray[np.float32]) -> bytes:
    return wav_bytes(tune, 22050)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def get(server: Server, path: str, headers: Mapping[str, str] | Mapping[bytes, bytes] | None = None) -> httpx.Response:
    return httpx.get(server.url + path, headers=headers, timeout=30)


WRONG = {
    "none": {},
    "wrong": {b"Authorization": b"Bearer wrong"},
    "truncated": {b"Authorization": b"Bearer " + _ALICE[:-1].encode()},
    "empty": {b"Authorization": b"Bearer"},
    "not text": {b"Authorization": b"Bearer \xff\xfe"},
    "no scheme": {b"Authorization": _ALICE.encode()},
    "other scheme": {b"Authorization": b"Basic " + base64.b64encode(f"alice:{_ALICE}".encode())},
    "other header": {b"X-API-Key": _ALICE.encode()},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_without_a_valid_key_no_request_is_accepted(closed: Server, song: bytes, wrong: str) -> None:
    headers = WRONG[wrong]
    for response in (
        httpx.post(f"{closed.url}/v1/predict", content=song, headers=headers),
        httpx.post(f"{closed.url}/v1/predict?top_k=wrong", headers=headers),
        get(closed, "/v1/models", headers),
        get(closed, "/v1/models/nobody", headers),
        get(closed, "/metrics", headers),
    ):
        assert response.status_code == 401, response.text
        assert response.json()["code"] == "unauthorised"
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["request_id"] == response.headers["x-request-id"]


def test_with_a_key_requests_are_accepted(closed: Server, song: bytes) -> None:
    response = httpx.post(f"{closed.url}/v1/predict", content=song, headers=bearer(_ALICE), timeout=60)
    assert response.status_code == 200
    assert get(closed, "/v1/models", {"authorization": f"bearer {_ALICE}"}).status_code == 200
    assert b"wholetrack_predictions_total" in get(closed, "/metrics", bearer(_ALICE)).content


def test_probes_and_documentation_need_no_key(closed: Server) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert get(closed, path).status_code == 200
    schema = get(closed, "/openapi.json").json()
    assert schema["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert schema["paths"]["/v1/predict"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "401" in schema["paths"]["/v1/predict"]["post"]["responses"]
    assert "security" not in schema["paths"]["/healthz"]["get"]


def test_a_key_has_a_concurrency_limit_and_a_rate_limit(closed: Server, song: bytes) -> None:
    long = wav_bytes(np.tile(np.frombuffer(song[44:], dtype="<i2").astype(np.float32) / 32768, 60), 22050)
    responses: list[httpx.Response] = []

    def post(content: bytes) -> None:
        response = httpx.post(
            f"{closed.url}/v1/predict?windows=none", content=content, headers=bearer(_BOB), timeout=90
        )
        responses.append(response)

    slow = threading.Thread(target=post, args=(long,))
    slow.start()
    while "wholetrack_predictions_in_progress 1.0" not in get(closed, "/metrics", bearer(_ALICE)).text:
        assert slow.is_alive()
    post(song)
    assert responses[0].status_code == 429
    assert "in progress" in responses[0].json()["detail"]
    slow.join()
    assert responses[1].status_code == 200
    # One of the five requests per minute has been used; the refused one does not count. If much time has passed, it
    # counts for less.
    statuses = [get(closed, "/v1/models", bearer(_BOB)).status_code for _ in range(8)]
    assert 4 <= statuses.count(200) <= 5
    assert statuses == sorted(statuses)
    assert int(get(closed, "/v1/models", bearer(_BOB)).headers["retry-after"]) >= 1
    assert get(closed, "/v1/models", bearer(_ALICE)).status_code == 200


def test_requests_for_other_hosts_are_refused_unless_they_need_a_key(server: Server, closed: Server) -> None:
    """A page of a domain that resolves to 127.0.0.1 cannot read the responses of a service without keys."""
    for path in ("/healthz", "/v1/models", "/docs", "/nowhere"):
        assert_problem(get(server, path, {"Host": "evil.example:8000"}), 421, "unknown_host")
    posted = httpx.post(f"{server.url}/v1/predict", content=b"RIFF", headers={"Host": "evil.example"})
    assert_problem(posted, 421, "unknown_host")
    for host in ("localhost:8000", "127.0.0.1", "[::1]", "wholetrack"):
        assert get(server, "/v1/models", {"Host": host}).status_code == 200
    assert get(closed, "/v1/models", {"Host": "music.example.org", **bearer(_ALICE)}).status_code == 200


def test_logs_name_the_key_of_a_request_but_contain_no_secret(closed: Server) -> None:
    get(closed, "/v1/models", bearer(_ALICE))
    get(closed, "/v1/models", bearer("secret-guess-of-a-key"))
    log = closed.log.read_text()
    assert '"key": "alice"' in log
    for secret in (_ALICE, _BOB, "secret-guess"):
        assert secret not in log
        assert secret not in get(closed, "/metrics", bearer(_ALICE)).text
        assert secret not in get(closed, "/v1/models", bearer("secret-guess-of-a-key")).text


def test_the_key_command_creates_entries_for_the_key_file(tmp_path: Path) -> None:
    created = subprocess.run(
        [sys.executable, "-m", "wholetrack", "key", "carol"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    key = created.stderr.split()[1]
    file = tmp_path / "keys.toml"
    file.write_text(created.stdout)
    keys = Keys.load(Settings(api_keys_file=file))
    assert keys
    assert keys.find(key)
    assert created.stdout == f'[carol]\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
    settings = subprocess.run(
        [sys.executable, "-m", "wholetrack", "settings"],
        cwd=PROJECT,
        env={"WHOLETRACK_API_KEYS": f"carol:{key}", "PATH": "", "COLUMNS": "500"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "WHOLETRACK_API_KEYS" in settings.stdout
    assert key not in settings.stdout
    file.write_text("[carol]")
    refused = subprocess.run(
        [sys.executable, "-m", "wholetrack", "serve", "--port", "0"],
        cwd=PROJECT,
        env=os.environ | {"WHOLETRACK_API_KEYS_FILE": str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(f"wholetrack: the API key file {file} is invalid")


def test_responses_have_security_headers(closed: Server, song: bytes) -> None:
    predicted = httpx.post(f"{closed.url}/v1/predict", content=song, headers=bearer(_ALICE), timeout=60)
    for response in (predicted, get(closed, "/healthz"), get(closed, "/v1/models"), get(closed, "/nowhere")):
        headers = response.headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_the_documentation_page_may_run_only_its_own_scripts(closed: Server) -> None:
    page = get(closed, "/docs")
    policy = page.headers["content-security-policy"]
    (inline,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith("/")
        assert get(closed, address).status_code == 200


def test_other_origins_may_read_responses_only_if_configured(closed: Server, tmp_path: Path) -> None:
    origin = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(f"{closed.url}/v1/predict", headers=origin).headers
    with running_server(tmp_path, cors_origins='["https://example.org"]') as server:
        allowed = httpx.options(f"{server.url}/v1/predict", headers=origin)
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        assert "access-control-allow-credentials" not in allowed.headers
        other = httpx.options(f"{server.url}/v1/predict", headers=origin | {"Origin": "https://example.com"})
        assert "access-control-allow-origin" not in other.headers
        response = httpx.get(f"{server.url}/healthz", headers={"Origin": "https://example.org"})
        assert response.headers["cross-origin-resource-policy"] == "cross-origin"
