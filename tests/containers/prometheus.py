"""Queries to Prometheus."""

from __future__ import annotations

import httpx


def query_prometheus(port: int, query: str) -> list[tuple[dict[str, str], float]]:
    """Return the current series of a query with their labels and values; none while Prometheus is not up yet."""
    try:
        response = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=10)
    except httpx.TransportError:
        return []
    body = response.json()
    assert body["status"] == "success", f"{query}: {body}"
    return [(series["metric"], float(series["value"][1])) for series in body["data"]["result"]]
