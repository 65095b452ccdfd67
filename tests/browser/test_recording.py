"""Recording from the microphone, which is predicted over a WebSocket while it goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, WebSocket, expect

from tests.browser.actions import wait_for_result
from tests.browser.conftest import KEY, OpenPage
from tests.e2e.live_client import MONO, live, receive
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.timing]


class Traffic:
    """What a page sends and receives over WebSockets, and which predictions it requests otherwise."""

    def __init__(self, page: Page) -> None:
        self.urls: list[str] = []
        self.sent: list[str | bytes] = []
        self.received: list[dict[str, Any]] = []
        self.posts: list[str] = []
        page.on("websocket", self._follow)
        page.on("request", lambda request: self.posts.append(request.url) if request.method == "POST" else None)

    def _follow(self, websocket: WebSocket) -> None:
        self.urls.append(websocket.url)
        websocket.on("framesent", self._add_sent)
        websocket.on("framereceived", lambda payload: self.received.append(json.loads(payload)))

    def _add_sent(self, payload: str | bytes) -> None:
        self.sent.append(payload)

    def names(self) -> list[str]:
        return [event["event"] for event in self.received]

    def audio(self) -> bytes:
        return b"".join(part for part in self.sent if isinstance(part, bytes))


def record(page: Page, seconds: int) -> None:
    """Record until the page shows at least that many seconds, less than ten."""
    page.click("#record")
    expect(page.locator("#verdict")).to_have_text("Recording")
    expect(page.locator("#clock")).to_contain_text(re.compile(f"/ 0:0[{seconds}-9]"))


def test_a_recording_is_predicted_while_it_goes_on(server: Server, open_page: OpenPage, screenshots: Path) -> None:
    page = open_page(server.url, permissions=["microphone"])
    traffic = Traffic(page)
    record(page, 6)
    expect(page.locator("#areas canvas")).to_be_visible()
    # The service has classified windows before the end.
    assert "windows" in traffic.names()
    assert "result" not in traffic.names()
    page.screenshot(path=screenshots / "recording.png")
    page.click("#stop-button")
    wait_for_result(page)
    expect(page.locator("#filename")).to_contain_text("Recording")
    expect(page.locator("#facts")).to_contain_text("pcm_s16le")
    expect(page.locator("#play")).to_be_enabled()
    assert traffic.names()[0] == "start"
    assert traffic.names()[-1] == "result"
    # Nothing is uploaded once more.
    assert traffic.posts == []
    assert traffic.urls == [server.url.replace("http", "ws") + "/v1/live"]
    assert traffic.sent[-1] == '{"end":true}'
    # The timeline has the values of the API for the same samples.
    samples = np.frombuffer(traffic.audio(), dtype="<i2").astype(np.float32) / np.float32(32768)
    rate = json.loads(str(traffic.sent[0]))["sample_rate_hz"]
    upload = server.post(wav_bytes(samples, rate)).json()
    result = traffic.received[-1]["data"]
    assert len(result["windows"]["start_s"]) >= 4
    assert result["windows"]["start_s"] == upload["windows"]["start_s"]
    np.testing.assert_allclose(
        result["windows"]["probabilities"], upload["windows"]["probabilities"], atol=1.001e-4, rtol=0
    )


def open_with_key(open_page: OpenPage, server: Server) -> Page:
    """Open the page of a service that needs a key, and enter that."""
    page = open_page(server.url, permissions=["microphone"])
    page.fill("#key", KEY)
    page.click("#key-form button[type=submit]")
    expect(page.locator("#model option")).not_to_have_count(0)
    return page


def test_the_key_is_sent_in_the_first_message(closed: Server, open_page: OpenPage) -> None:
    page = open_with_key(open_page, closed)
    traffic = Traffic(page)
    record(page, 3)
    page.click("#stop-button")
    wait_for_result(page)
    assert json.loads(str(traffic.sent[0]))["key"] == KEY
    assert KEY not in "".join(traffic.urls)
    assert traffic.posts == []


def test_a_recording_that_cannot_be_predicted_live_is_predicted_at_its_end(closed: Server, open_page: OpenPage) -> None:
    with live(closed, MONO | {"key": KEY}) as other:
        assert receive(other)[0] == "start"
        page = open_with_key(open_page, closed)
        traffic = Traffic(page)
        record(page, 3)
        expect(page.locator("#live-note")).to_contain_text("The recording goes on")
        assert traffic.names() == ["error"]
        page.click("#stop-button")
        wait_for_result(page)
        assert [url.partition("?")[0] for url in traffic.posts] == [f"{closed.url}/v1/predict"]


def test_the_page_works_behind_a_path_prefix(prefixed: Server, open_page: OpenPage) -> None:
    page = open_page(f"{prefixed.url}/music/", permissions=["microphone"])
    traffic = Traffic(page)
    record(page, 3)
    page.click("#stop-button")
    wait_for_result(page)
    assert traffic.urls == [prefixed.url.replace("http", "ws") + "/music/v1/live"]
    assert traffic.posts == []
