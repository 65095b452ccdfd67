"""A service whose networks run on another instance of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from numpy.typing import NDArray

from tests.harness.recordings import wav_bytes
from tests.harness.server import Server, is_ready, running_server
from tests.harness.waiting import until

KEY = "the-key-of-the-front-end-instance"
RATE = 22050


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("networks"), api_keys=f"front:{KEY}") as started:
        yield started


@pytest.fixture(scope="module")
def front(networks: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"inference_url": networks.url, "inference_key": KEY, "device": "auto", "device_timeout_s": 4}
    with running_server(tmp_path_factory.mktemp("front"), **settings, cache_mb=0) as started:
        yield started


def prediction_of(response: httpx.Response) -> dict[str, Any]:
    """Return what a response says about the recording."""
    assert response.status_code == 200, response.text
    document = response.json()
    return {name: document.get(name) for name in ("prediction", "sections", "windows", "tags", "warnings")}


@pytest.mark.parametrize("model", ["wholetrack-crnn", "deepsound-crnn"])
def test_predictions_are_those_of_the_other_instance(
    networks: Server, front: Server, tune: NDArray[Any], model: str
) -> None:
    content = wav_bytes(tune, RATE)
    query: dict[str, Any] = {"model": model, "windows": "full"}
    direct = httpx.post(
        f"{networks.url}/v1/predict", params=query, content=content, headers={"Authorization": f"Bearer {KEY}"}
    )
    remote = front.post(content, **query)
    assert remote.json()["model"]["device"] == "remote"
    assert prediction_of(remote) == prediction_of(direct)


def test_readiness_names_the_device(front: Server) -> None:
    assert set(front.get("/readyz").json()["models"].values()) == {"remote"}


def test_predictions_fail_while_the_other_instance_hangs_and_succeed_afterwards(
    networks: Server, front: Server, tune: NDArray[Any]
) -> None:
    content = wav_bytes(tune, RATE)
    networks.process.send_signal(signal.SIGSTOP)
    try:
        response = front.post(content)
        assert (response.status_code, response.json()["code"]) == (503, "device_failed")
        assert int(response.headers["Retry-After"]) > 0
    finally:
        networks.process.send_signal(signal.SIGCONT)
    until(lambda: is_ready(front.url), seconds=30, poll_s=0.1)
    assert front.post(content).status_code == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cpu"}, "unset one of them"),
        ({"device": "auto", "inference_key": "wrong"}, "the status 401"),
    ],
    ids=["device", "key"],
)
def test_a_configuration_that_cannot_work_ends_the_start(
    networks: Server, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    with (
        pytest.raises(AssertionError, match=message),
        running_server(tmp_path, inference_url=networks.url, **settings),
    ):
        pass
