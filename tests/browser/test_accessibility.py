"""The page with a keyboard, on a phone, in the dark, and for screen readers."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.actions import choose, wait_for_drawing, wait_for_result
from tests.browser.conftest import OpenPage
from tests.harness.paths import PROJECT
from tests.harness.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.timing]

_AXE = PROJECT / "page" / "node_modules" / "axe-core" / "axe.min.js"


def violations(page: Page) -> list[str]:
    """Return the rules of axe-core that the page breaks, with the elements."""
    page.evaluate(_AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']} ({rule['impact']}): {[node['target'] for node in rule['nodes']]}" for rule in found]


@pytest.mark.node
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    server: Server, open_page: OpenPage, tune_file: Path, tmp_path: Path, scheme: str, screenshots: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no recording")
    # axe-core adds styles, which the policy of the page would refuse.
    page = open_page(server.url, color_scheme=scheme, bypass_csp=True)
    wait_for_drawing(page)
    assert violations(page) == []
    choose(page, tune_file, notes)
    wait_for_result(page)
    assert violations(page) == []
    page.screenshot(path=screenshots / f"result-{scheme}.png", full_page=True)
    page.wait_for_selector(".card[data-state=failed]")
    page.click(".card[data-state=failed]")
    expect(page.locator("#failure")).to_be_visible()
    assert violations(page) == []


def test_everything_can_be_done_with_the_keyboard(server: Server, open_page: OpenPage, tune_file: Path) -> None:
    page = open_page(server.url)
    # Not with expect_file_chooser: a key press can overtake its message to the browser, which then opens a dialog.
    page.on("filechooser", lambda chooser: chooser.set_files(tune_file))

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"cannot reach {selector} with the Tab key")

    tab_to("#choose")
    page.keyboard.press("Enter")
    wait_for_result(page)
    expect(page.locator("#verdict")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#clock")).to_contain_text("0:02 /")
    tab_to("#position")
    for second in (1, 0):
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#clock")).to_contain_text(f"0:0{second} /")
        expect(page.locator("#position")).to_have_js_property("value", str(second))
    assert "0:00 of 0:10, " in (page.get_attribute("#position", "aria-valuetext") or "")
    tab_to("#model")
    page.keyboard.press("Home")
    tab_to("#again button")
    page.keyboard.press("Enter")
    expect(page.locator("#facts")).to_contain_text("campana-crnn")
    # The button was hidden for a moment.
    expect(page.locator("#verdict")).to_be_focused()
    tab_to("#save-csv")
    with page.expect_download():
        page.keyboard.press("Enter")


def test_space_plays_and_pauses(server: Server, open_page: OpenPage, tune_file: Path) -> None:
    page = open_page(server.url)
    choose(page, tune_file)
    wait_for_result(page)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")


def test_screen_readers_are_told_what_happens(server: Server, open_page: OpenPage, tune_file: Path) -> None:
    page = open_page(server.url)
    choose(page, tune_file)
    wait_for_result(page)
    verdict = page.text_content("#verdict") or ""
    expect(page.locator("#status")).to_have_text(f"tune.wav: {verdict}")
    expect(page.locator("#areas")).to_have_attribute("role", "img")
    assert (page.text_content("#figure-caption") or "").startswith("Genres over 0:10.")


def test_nothing_is_cut_off_on_a_phone(server: Server, open_page: OpenPage, tune_file: Path, screenshots: Path) -> None:
    page = open_page(server.url, size=(360, 740), device_scale_factor=2, has_touch=True, is_mobile=True)
    page.screenshot(path=screenshots / "phone-start.png")
    choose(page, tune_file, tune_file, tune_file)
    wait_for_result(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, nav a')].filter((e) => e.offsetParent && e.offsetHeight < 40)"
        ".map((e) => e.id || e.className)"
    )
    assert small == []
    page.screenshot(path=screenshots / "phone-result.png", full_page=True)
    page.locator("#areas").tap(position={"x": 180, "y": 100})
    expect(page.locator("#clock")).to_contain_text("0:05 /")


def test_the_page_follows_the_colour_scheme(server: Server, open_page: OpenPage) -> None:
    backgrounds = [
        open_page(server.url, color_scheme=scheme).evaluate(
            "getComputedStyle(document.documentElement).backgroundColor"
        )
        for scheme in ("light", "dark")
    ]
    assert backgrounds == ["rgb(250, 248, 244)", "rgb(22, 20, 26)"]


def test_without_a_secure_context_the_page_says_why_it_cannot_record(server: Server, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.evaluate("Object.defineProperty(window, 'isSecureContext', { value: false })")
    page.click("#record")
    expect(page.locator("#record-note")).to_contain_text("only over https or on this machine")
