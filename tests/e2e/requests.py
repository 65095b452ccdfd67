"""Requests and checks that several end-to-end tests share."""

from __future__ import annotations

import socket
import time
from typing import Any

import httpx

from tests.harness.server import Server


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that a response is a well-formed problem with this status and code, and return its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"urn:wholetrack:problem:{code}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["retry_after_s"] == (int(response.headers.get("retry-after", "0")) or None)
    assert problem["title"]
    assert problem["detail"].endswith(".")
    assert "/" not in problem["detail"].replace("See /docs", ""), "the detail may contain a path"
    return problem


def start_upload(server: Server, *, content_length: int) -> socket.socket:
    """Send the headers of a prediction request and return its connection."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    headers = f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {content_length}\r\n\r\n"
    connection.sendall(headers.encode())
    return connection


def count_outcomes(server: Server, code: str) -> float:
    """Return how many predictions have ended with this code, or ``ok``."""
    line = f'wholetrack_predictions_total{{code="{code}"}} '
    return sum(
        float(row.removeprefix(line)) for row in server.get("/metrics").text.splitlines() if row.startswith(line)
    )


def wait_for_outcome(server: Server, code: str, count: float, *, seconds: float = 20.0) -> None:
    """Wait until that many predictions have ended with this code."""
    deadline = time.monotonic() + seconds
    while count_outcomes(server, code) < count:
        assert time.monotonic() < deadline, server.get("/metrics").text
        time.sleep(0.05)
