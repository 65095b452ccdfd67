"""Recording the sound of another tab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from tests.browser.actions import choose, wait_for_result
from tests.browser.conftest import SHARED_TAB, OpenPage, pages_of, start_browser
from tests.harness.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.timing]

_PLAYER = """(source) => {
    const audio = new Audio(source);
    audio.loop = true;
    return audio.play();
}"""


def play_music(page: Page, server: Server, tune_file: Path) -> Page:
    """Open another tab, and play a tune in it."""
    tab = page.context.new_page()
    html = f"<title>{SHARED_TAB}</title>"
    tab.route("**/player", lambda route: route.fulfill(body=html, content_type="text/html"))
    tab.route("**/tune.wav", lambda route: route.fulfill(path=tune_file, content_type="audio/wav"))
    tab.goto(f"{server.url}/player")
    tab.evaluate(_PLAYER, "tune.wav")
    page.bring_to_front()
    return tab


def test_the_sound_of_a_tab_is_predicted_while_it_is_recorded(
    server: Server, open_page: OpenPage, tune_file: Path
) -> None:
    page = open_page(server.url)
    tab = play_music(page, server, tune_file)
    page.click("#record-tab")
    expect(page.locator("#verdict")).to_have_text("Recording")
    expect(page.locator("#stop-button")).to_be_focused()
    # The genres of the first windows.
    expect(page.locator("#sentence")).to_contain_text("So far ", timeout=60_000)
    # The browser ends the recording when the tab is closed.
    tab.close()
    wait_for_result(page)
    expect(page.locator("#verdict")).to_be_focused()
    # It is not silence that was recorded.
    assert page.text_content("#verdict") != "Silence"
    expect(page.locator("#play")).to_be_enabled()


def test_a_tab_without_its_sound_is_reported_in_a_sentence(
    server: Server, open_page: OpenPage, tune_file: Path
) -> None:
    page = open_page(server.url)
    play_music(page, server, tune_file)
    # As if the box for the sound were not ticked in the dialog.
    page.evaluate(
        "() => { const media = navigator.mediaDevices, share = media.getDisplayMedia.bind(media);"
        "media.getDisplayMedia = (options) => share({ ...options, audio: false }); }"
    )
    page.click("#record-tab")
    expect(page.locator("#record-note")).to_contain_text("no sound was shared")
    expect(page.locator("#status")).to_contain_text("no sound was shared")
    expect(page.locator("#start")).to_be_visible()


@pytest.fixture(scope="module")
def refusing(playwright: Playwright) -> Iterator[Browser]:
    """A browser whose user cancels every request to record."""
    started = start_browser(playwright, "--use-fake-ui-for-media-stream=deny")
    yield started
    started.close()


def test_a_refusal_is_reported_in_a_sentence(server: Server, refusing: Browser, tune_file: Path) -> None:
    for open_page in pages_of(refusing):
        page = open_page(server.url)
        page.click("#record-tab")
        expect(page.locator("#record-note")).to_contain_text("no tab was shared")
        page.click("#record")
        expect(page.locator("#record-note")).to_contain_text("did not allow this page to use the microphone")
        # It can be read when there is a result, too.
        choose(page, tune_file)
        wait_for_result(page)
        page.click("#record-tab-more")
        expect(page.locator("#queue-note")).to_contain_text("no tab was shared")
        expect(page.locator("#queue-note")).to_be_visible()
