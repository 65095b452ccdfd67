"""Spans are exported to a collector: each prediction is part of the client's trace, with the time of each stage."""

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

pytestmark = pytest.mark.timing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """An OpenTelemetry collector that stores the spans it receives."""

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
        # Requests are excluded from tracing by path, not by host.
        "host": "metrics.example",
    }
    with running_server(tmp_path, otlp_endpoint=endpoint, allowed_hosts='["metrics.example"]') as server:
        for content, status in ((wav_bytes(tune, 22050), 200), (b"not music", 415)):
            response = httpx.post(f"{server.url}/v1/predict", content=content, headers=client, timeout=60)
            assert response.status_code == status, response.text
        assert server.get("/healthz").status_code == 200
    # The service has exited, so all spans have been exported.
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    by_name: dict[str, list[Any]] = {}
    for span in sorted(collector.spans, key=lambda span: span.start_time_unix_nano):
        by_name.setdefault(span.name, []).append(span)
    assert {name: len(spans) for name, spans in by_name.items()} == {"POST /v1/predict": 2, "receive": 2, "predict": 2}
    request, predict = by_name["POST /v1/predict"][0], by_name["predict"][0]
    assert request.parent_span_id.hex() == PARENT
    for part in (by_name["receive"][0], predict):
        assert part.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= part.start_time_unix_nano
        assert part.end_time_unix_nano <= request.end_time_unix_nano
    attributes = {each.key: each.value for each in predict.attributes}
    assert attributes["wholetrack.request_id"].string_value == client["x-request-id"]
    assert attributes["wholetrack.model"].string_value == "wholetrack-crnn"
    assert attributes["wholetrack.windows"].int_value == 8
    assert attributes["wholetrack.audio_s"].double_value == pytest.approx(10, abs=0.1)
    for stage in ("receive", "decode", "features", "queue", "inference", "total"):
        assert attributes[f"wholetrack.{stage}_ms"].double_value >= 0
    failed = by_name["predict"][1]
    assert failed.status.code == failed.status.STATUS_CODE_ERROR


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(StartupError, match="install the extra 'tracing'"):
        Tracing(FastAPI(), "http://127.0.0.1:4318/v1/traces")


def test_without_an_endpoint_the_sdk_is_not_loaded() -> None:
    program = "import sys, wholetrack.api.app; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
