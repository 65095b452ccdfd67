"""Spans arrive at a collector: one trace per prediction, continued from the client's, that explains a slow answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.harness.recordings import wav_bytes
from tests.harness.server import running_server
from wholetrack.api.tracing import Tracing
from wholetrack.errors import StartupError

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Listener)
        self.spans: list[Any] = []


class Listener(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as started:
        threading.Thread(target=started.serve_forever).start()
        yield started
        started.shutdown()


def test_a_prediction_is_a_trace(collector: Collector, tmp_path: Path, tune: NDArray[np.float32]) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
    client = {
        "traceparent": f"00-{TRACE}-{PARENT}-01",
        "x-request-id": "f47ac10b58cc4372a5670e02b2c3d479",
        # What is not traced goes by the path alone.
        "host": "metrics.example",
    }
    with running_server(tmp_path, otlp_endpoint=endpoint) as server:
        for content, status in ((wav_bytes(tune, 22050), 200), (b"no music", 415)):
            response = httpx.post(f"{server.url}/v1/predict", content=content, headers=client, timeout=60)
            assert response.status_code == status, response.text
        assert server.get("/healthz").status_code == 200
    # The service has ended, so that everything was sent.
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    by_name: dict[str, list[Any]] = {}
    for span in sorted(collector.spans, key=lambda span: span.start_time_unix_nano):
        by_name.setdefault(span.name, []).append(span)
    assert {name: len(spans) for name, spans in by_name.items()} == {"POST /v1/predict": 2, "receive": 2, "hear": 2}
    request, hear = by_name["POST /v1/predict"][0], by_name["hear"][0]
    assert request.parent_span_id.hex() == PARENT
    for part in (by_name["receive"][0], hear):
        assert part.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= part.start_time_unix_nano
        assert part.end_time_unix_nano <= request.end_time_unix_nano
    facts = {each.key: each.value for each in hear.attributes}
    assert facts["wholetrack.request_id"].string_value == client["x-request-id"]
    assert facts["wholetrack.model"].string_value == "wholetrack-crnn"
    assert facts["wholetrack.windows"].int_value == 8
    assert facts["wholetrack.audio_s"].double_value == pytest.approx(10, abs=0.1)
    for stage in ("receive", "decode", "features", "queue", "inference", "total"):
        assert facts[f"wholetrack.{stage}_ms"].double_value >= 0
    failed = by_name["hear"][1]
    assert failed.status.code == failed.status.STATUS_CODE_ERROR


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(StartupError, match="install the extra 'tracing'"):
        Tracing(FastAPI(), "http://127.0.0.1:4318/v1/traces")


def test_without_an_endpoint_nothing_of_it_is_loaded() -> None:
    program = "import sys, wholetrack.api.app; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
