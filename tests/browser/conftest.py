"""A browser, and pages of the service in it."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.browser.chromium import find_chromium
from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server, running_server

OpenPage = Callable[..., Page]

SHARED_TAB = "A page with music"
KEY = "alices-key-of-enough-characters"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as `make serve` starts it."""
    with running_server(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=30_000)
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service behind a path prefix."""
    with running_server(tmp_path_factory.mktemp("prefixed"), root_path="/music") as started:
        yield started


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that needs the key, and predicts one recording live at a time."""
    limits = {"max_live": 1, "client_timeout_s": 60}
    with running_server(tmp_path_factory.mktemp("closed"), api_keys=f"alice:{KEY}", **limits) as started:
        yield started


def start_browser(playwright: Playwright, *arguments: str) -> Browser:
    """Start Chromium. Containers forbid its sandbox, and it opens nothing but our own page."""
    own = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream"]
    # Without sound, there would be nothing to record from a tab.
    return playwright.chromium.launch(
        executable_path=find_chromium(), args=[*own, *arguments], ignore_default_args=["--mute-audio"]
    )


@pytest.fixture(scope="session")
def browser(
    playwright: Playwright, tmp_path_factory: pytest.TempPathFactory, tune: NDArray[np.float32]
) -> Iterator[Browser]:
    """A browser whose microphone receives a tune again and again, and whose user shares the tab called SHARED_TAB."""
    path = tmp_path_factory.mktemp("microphone") / "tune.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes((tune * 32767).astype("<i2").tobytes())
    started = start_browser(
        playwright,
        f"--use-file-for-fake-audio-capture={path}",
        f"--auto-select-tab-capture-source-by-title={SHARED_TAB}",
    )
    yield started
    started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages, each in a fresh profile. At the end, no page may have failed or sent a request to another host."""
    yield from pages_of(browser)


def pages_of(browser: Browser) -> Iterator[OpenPage]:
    """Yield a function that opens pages in a browser, and check them as :func:`open_page` says."""
    contexts, complaints = [], list[str]()

    def open_url(url: str, *, size: tuple[int, int] = (1440, 900), **options: Any) -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        host = urlsplit(url).netloc

        def check_request(requested: str) -> None:
            parts = urlsplit(requested)
            if parts.scheme not in ("blob", "data") and parts.netloc != host:
                complaints.append(f"a request to {requested}")

        context.on("request", lambda request: check_request(request.url))
        page.on("pageerror", lambda error: complaints.append(f"an error: {error}"))
        page.on(
            "console",
            lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None,
        )
        page.goto(url)
        return page

    yield open_url
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def tune_file(tmp_path_factory: pytest.TempPathFactory, tune: NDArray[Any]) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "tune.wav"
    path.write_bytes(wav_bytes(tune, 22050))
    return path


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder for pictures of each state, for people to look at."""
    folder = PROJECT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
