"""A browser, and pages of the service in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.browser.chromium import find_chromium
from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server, running_server

OpenPage = Callable[..., Page]


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


def start_browser(playwright: Playwright, *arguments: str, with_sound: bool = False) -> Browser:
    """Start Chromium. Containers forbid its sandbox, and it opens nothing but our own page.

    Args:
        playwright: Starts it.
        arguments: Further arguments of its command line.
        with_sound: Whether tabs have sound that can be recorded. Otherwise the browser is muted.
    """
    own = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream"]
    unwanted = ["--mute-audio"] if with_sound else []
    return playwright.chromium.launch(
        executable_path=find_chromium(), args=[*own, *arguments], ignore_default_args=unwanted
    )


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    started = start_browser(playwright)
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
