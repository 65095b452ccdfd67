"""What replicas of all kinds share: settings, events, metrics, and the header with the id of a request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import anyio
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Receive, Scope, Send

from wholetrack.contracts import Rows
from wholetrack.part_of_machine import for_part_of_machine
from wholetrack.ray import cluster_metrics
from wholetrack.ray.cluster_metrics import ClusterMetrics, labelled
from wholetrack.ray.ingress import OneRequestId
from wholetrack.ray.messages import Classified, Decoded, Started
from wholetrack.ray.relay import Relay
from wholetrack.settings import Settings


def test_defaults_are_for_the_cpus_of_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.ray.replica.available_cpus", lambda: 8)
    monkeypatch.setattr("wholetrack.ray.replica.memory_limit_bytes", lambda: 16 << 30)
    part = for_part_of_machine(Settings(_env_file=None), cpus=2)
    assert (part.tracks_at_once, part.cpu_threads, part.tracks_open) == (2, 2, 32)
    assert (part.pin_decoders, part.decoder_memory_mb) == (False, 2048)
    whole = for_part_of_machine(Settings(_env_file=None, pin_decoders=True), cpus=8)
    assert (whole.tracks_at_once, whole.pin_decoders, whole.decoder_memory_mb) == (8, True, None)


def test_explicit_settings_apply_to_every_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wholetrack.ray.replica.available_cpus", lambda: 8)
    given = Settings(_env_file=None, tracks_at_once=3, decoder_memory_mb=100, pin_decoders=True)
    part = for_part_of_machine(given, cpus=2)
    assert (part.tracks_at_once, part.decoder_memory_mb, part.pin_decoders) == (3, 100, True)


def test_events_of_threads_are_taken_in_order() -> None:
    async def run() -> None:
        relay = Relay(10, "gtzan")
        with ThreadPoolExecutor(1) as thread:
            thread.submit(relay.started, None, 0.5, None).result()  # type: ignore[arg-type]
            thread.submit(relay.decoded, 7, np.zeros(1, dtype=np.float32)).result()
            thread.submit(relay.classified, 3, Rows.zeros(2, [(4,), (512,)])).result()
        await relay.changed.wait()
        first, second, third = relay.take()
        assert first == Started(0.5, "gtzan")
        assert isinstance(second, Decoded)
        assert isinstance(third, Classified)
        # Only the scores are sent.
        assert third.scores.shape == (2, 4)
        assert relay.take() == []
        assert not relay.changed.is_set()

    anyio.run(run)


class Handle:
    """The handle of a deployment whose replicas report these metrics."""

    def __init__(self, *replicas: Any) -> None:
        self._replicas = replicas

    def broadcast(self, method: str) -> Any:
        assert method == "metrics"
        if not self._replicas:
            raise RuntimeError("there is no replica")
        return SimpleNamespace(results=lambda **_: list(self._replicas))


def _families(monkeypatch: pytest.MonkeyPatch, replica: str, count: int) -> list[Any]:
    monkeypatch.setattr(cluster_metrics, "replica_name", lambda: replica)
    registry = CollectorRegistry()
    Counter("wholetrack_things", "Things.", ["kind"], registry=registry).labels("good").inc(count)
    return labelled(registry.collect())


def test_metrics_of_all_replicas_are_exposed_once_with_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = ClusterMetrics()
    handles = {
        "analysis": Handle(_families(monkeypatch, "a", 2), RuntimeError("lost"), _families(monkeypatch, "b", 3)),
        "network": Handle(),
    }
    metrics.deployments = handles  # type: ignore[assignment]
    text = metrics.exposition().decode()
    assert text.count("# TYPE wholetrack_things_total counter") == 1
    (family,) = (found for found in text_string_to_metric_families(text) if found.name == "wholetrack_things")
    samples = {sample.labels["replica"]: sample.value for sample in family.samples if sample.name.endswith("_total")}
    assert samples == {"a": 2, "b": 3}


@pytest.mark.parametrize(("given", "expected"), [(b"same", []), (b"refused", [b"same"]), (None, [b"same"])])
def test_a_response_has_the_id_that_the_proxy_adds_only_once(given: bytes | None, expected: list[bytes]) -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"same"), (b"a", b"b")]}
        )
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    headers = [] if given is None else [(b"x-request-id", given)]
    anyio.run(OneRequestId(app), {"type": "http", "headers": headers}, receive, send)
    assert [value for name, value in sent[0]["headers"] if name == b"x-request-id"] == expected
    assert (b"a", b"b") in sent[0]["headers"]
