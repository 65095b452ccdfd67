"""The page in Chromium: results, playback, errors, the queue, links and downloads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.actions import choose, drop, point_at, states, wait_for_drawing, wait_for_result
from tests.browser.conftest import KEY, OpenPage
from tests.harness.recordings import wav_bytes
from tests.harness.server import Server
from tests.harness.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.timing]

# Of the default model. The page asks for all of them.
N_GENRES = 16


def percent(share: float) -> str:
    return f"{int(share * 100 + 0.5)} %"


def downloaded(page: Page, button: str) -> bytes:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes()


def new_address(page: Page, old: str) -> str:
    """Wait until the address of a page has changed, and return it."""
    # Not page.url, which is updated only while Playwright waits for something.
    page.wait_for_function("old => location.href !== old", arg=old)
    return str(page.evaluate("location.href"))


@pytest.mark.data
def test_a_dropped_recording_is_shown_with_the_values_of_the_api(
    server: Server, open_page: OpenPage, music: Path, screenshots: Path
) -> None:
    file = music / "audio" / "full" / "hungarian-dance-5.ogg"
    expected = server.post(file, top_k=N_GENRES).json()
    page = open_page(server.url)
    page.screenshot(path=screenshots / "start.png")
    drop(page, file)
    wait_for_result(page)
    shown = json.loads(downloaded(page, "#save-json"))
    for part in ("track", "model", "prediction", "sections", "windows", "warnings"):
        assert shown[part] == expected[part]
    genre = expected["prediction"]["summed_score"]["genre"]
    assert genre in (page.text_content("#verdict") or "")
    rows = [re.split(r"\t", row) for row in page.locator("#genres").inner_text().split("\n") if row.strip()]
    assert rows[0][0] == genre
    duration_s = expected["track"]["duration_s"]
    for index in (3, len(expected["windows"]["start_s"]) // 2):
        page.mouse.move(*point_at(page, expected["windows"]["start_s"][index] + 1.5, duration_s))
        row = expected["windows"]["probabilities"][index]
        best = max(range(len(row)), key=row.__getitem__)
        reading = page.locator("#reading")
        expect(reading).to_contain_text(f"{expected['model']['labels'][best]} {percent(row[best])}")
    page.screenshot(path=screenshots / "result.png", full_page=True)


@pytest.mark.data
def test_playback_moves_the_cursor_and_a_click_seeks(server: Server, open_page: OpenPage, music: Path) -> None:
    page = open_page(server.url)
    choose(page, music / "audio" / "full" / "vibe-ace.ogg")
    wait_for_result(page)

    def cursor() -> float:
        return float(page.evaluate("parseFloat(document.getElementById('cursor-line').style.left)"))

    def moves_past(percentage: float) -> None:
        until(lambda: cursor() > percentage, seconds=30)

    page.click("#play")
    moves_past(1)
    expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
    page.click("#play")
    page.mouse.click(*point_at(page, 30, 61.4))
    assert cursor() == pytest.approx(100 * 30 / 61.4, abs=1)
    expect(page.locator("#clock")).to_contain_text("0:30 / 1:01")
    page.mouse.click(*point_at(page, 40, 61.4))
    page.click("#play")
    moves_past(66)


def test_several_recordings_are_queued_and_a_bad_one_does_not_stop_the_others(
    server: Server, open_page: OpenPage, tune_file: Path, tmp_path: Path, screenshots: Path
) -> None:
    notes, empty = tmp_path / "notes.txt", tmp_path / "empty.wav"
    notes.write_text("no recording")
    empty.write_bytes(tune_file.read_bytes()[:44])
    page = open_page(server.url)
    choose(page, tune_file, notes, tune_file, empty, tune_file)
    expect(page.locator(".card").nth(4)).to_have_attribute("data-state", "done", timeout=60_000)
    assert states(page) == ["done", "failed", "done", "failed", "done"]
    page.locator(".card").nth(1).click()
    expect(page.locator("#failure-text")).to_contain_text("This file is not a recording")
    # Neither sending it again nor another model would help.
    expect(page.locator("#retry")).to_be_hidden()
    expect(page.locator("#tools")).to_be_hidden()
    page.screenshot(path=screenshots / "error.png")
    page.locator(".card").nth(3).click()
    expect(page.locator("#failure-text")).to_contain_text(re.compile("empty|damaged"))
    page.locator(".card").nth(4).click()
    wait_for_result(page)


def test_a_lost_connection_can_be_retried_with_one_click(
    server: Server, open_page: OpenPage, tune_file: Path, screenshots: Path
) -> None:
    page = open_page(server.url)
    page.route("**/v1/predict*", lambda route: route.abort("connectionreset"))
    choose(page, tune_file)
    expect(page.locator("#failure-text")).to_contain_text("The connection was lost")
    page.screenshot(path=screenshots / "lost.png")
    page.unroute("**/v1/predict*")
    page.click("#retry")
    wait_for_result(page)
    expect(page.locator("#failure")).to_be_hidden()


def test_a_recording_can_be_cancelled_and_the_next_one_goes_on(
    server: Server, open_page: OpenPage, tune_file: Path
) -> None:
    page = open_page(server.url)
    # The first request gets no response.
    page.route("**/v1/predict*", lambda _: None, times=1)
    choose(page, tune_file, tune_file, tune_file)
    page.click("#cancel")
    expect(page.locator("#failure-text")).to_have_text("You have cancelled this recording.")
    expect(page.locator(".card").nth(2)).to_have_attribute("data-state", "done", timeout=60_000)
    assert states(page) == ["failed", "done", "done"]
    expect(page.locator("#cancel")).to_be_hidden()
    page.click("#retry")
    wait_for_result(page)


def test_a_recording_that_is_not_selected_can_be_retried_beside_its_error(
    server: Server, open_page: OpenPage, tune_file: Path
) -> None:
    page = open_page(server.url)
    choose(page, tune_file)
    wait_for_result(page)
    page.route("**/v1/predict*", lambda route: route.abort("connectionreset"))
    choose(page, tune_file)
    second = page.locator("#cards li").nth(1)
    expect(second.locator(".card-state")).to_contain_text("The connection was lost")
    page.unroute("**/v1/predict*")
    second.locator(".card-retry").click()
    expect(second.locator(".card")).to_have_attribute("data-state", "done", timeout=60_000)
    expect(second.locator(".card-retry")).to_be_hidden()


def test_silence_has_no_genre_and_no_colour(server: Server, open_page: OpenPage, tmp_path: Path) -> None:
    recording = tmp_path / "silence.wav"
    recording.write_bytes(wav_bytes(np.zeros(8 * 22050, dtype=np.float32), 22050))
    page = open_page(server.url)
    choose(page, recording)
    wait_for_result(page)
    expect(page.locator("#verdict")).to_have_text("Silence")
    expect(page.locator("#details")).to_be_hidden()
    colours = page.evaluate(
        "(canvas => { const { width, height } = canvas, draw = canvas.getContext('2d');"
        "const pixels = draw.getImageData(0, 0, width, Math.floor(height * 0.85)).data;"
        "const found = new Set(); for (let i = 0; i < pixels.length; i += 4) found.add(pixels.slice(i, i + 4).join());"
        "return [...found]; })(document.querySelector('#areas canvas'))"
    )
    assert colours == ["250,248,244,255"]


def test_a_stream_that_ends_without_a_result_is_a_lost_connection(
    server: Server, open_page: OpenPage, tune_file: Path
) -> None:
    def cut(route: Route) -> None:
        model = {"name": "m", "version": "1", "window_s": 3, "hop_s": 1, "step_s": None, "labels": ["a", "b"]}
        start = json.dumps({"event": "start", "data": {"model": model, "peaks_per_s": 10}})
        route.fulfill(status=200, content_type="application/x-ndjson", body=start + "\n")

    page = open_page(server.url)
    page.route("**/v1/predict*", cut)
    choose(page, tune_file)
    expect(page.locator("#failure-text")).to_contain_text("The connection was lost")


def test_a_restart_replaces_what_was_shown(server: Server, open_page: OpenPage, tune_file: Path) -> None:
    result = server.post(tune_file, top_k=N_GENRES).json()
    page = open_page(server.url)

    def restart(route: Route) -> None:
        model = {key: result["model"].get(key) for key in ("name", "version", "window_s", "hop_s", "step_s", "labels")}
        begin = {"model": model, "peaks_per_s": 10}
        row = [1 / N_GENRES] * N_GENRES
        wrong = {"first": 0, "silent": [], "start_s": [0.0], "genre": ["jazz"], "probabilities": [row]}
        events = [("start", begin), ("windows", wrong), ("restart", begin), ("result", result)]
        lines = [json.dumps({"event": name, "data": data}) + "\n" for name, data in events]
        route.fulfill(status=200, content_type="application/x-ndjson", body="".join(lines))

    page.route("**/v1/predict*", restart)
    choose(page, tune_file)
    wait_for_result(page)
    assert json.loads(downloaded(page, "#save-json"))["windows"] == result["windows"]


def test_another_model_and_hop_can_be_tried_with_the_same_file(
    server: Server, open_page: OpenPage, tune_file: Path
) -> None:
    page = open_page(server.url)
    choose(page, tune_file)
    wait_for_result(page)
    page.select_option("#model", "hilsdorf-crnn")
    page.select_option("#hop", "0.5")
    page.click("#again button")
    expect(page.locator("#facts")).to_contain_text("hilsdorf-crnn")
    expect(page.locator("#facts")).to_contain_text("every 0.5 s")
    # Each recording keeps its model.
    choose(page, tune_file)
    page.select_option("#model", "guimaraes-cnn")
    page.locator(".card").nth(1).click()
    expect(page.locator("#model")).to_have_value("hilsdorf-crnn")
    expect(page.locator("#hop")).to_have_value("")
    page.locator(".card").nth(0).click()
    expect(page.locator("#hop")).to_have_value("0.5")


def test_saved_tables_are_those_of_the_service(server: Server, open_page: OpenPage, tune_file: Path) -> None:
    page = open_page(server.url)
    choose(page, tune_file)
    wait_for_result(page)
    url = f"{server.url}/v1/predict?format=csv"
    expected = httpx.post(url, content=tune_file.read_bytes(), timeout=60)
    assert downloaded(page, "#save-csv").decode() == expected.text
    assert downloaded(page, "#save-png").startswith(b"\x89PNG")


def test_a_link_shows_the_result_again_without_the_service(
    server: Server, open_page: OpenPage, tune_file: Path, screenshots: Path
) -> None:
    page = open_page(server.url)
    choose(page, tune_file)
    wait_for_result(page)
    verdict = page.text_content("#verdict")
    page.click("#share")
    link = new_address(page, server.url + "/")
    assert len(link.partition("#")[2]) <= 8000
    other = open_page(link)
    expect(other.locator("#verdict")).to_have_text(verdict or "")
    assert "tune.wav" not in other.inner_text("body")
    expect(other.locator("#play")).to_be_disabled()
    wait_for_drawing(other)
    other.screenshot(path=screenshots / "link.png")
    page.check("#share-name")
    page.click("#share")
    expect(open_page(new_address(page, link)).locator("#filename")).to_have_text("tune.wav")


@pytest.mark.parametrize("fragment", ["#r=", "#r=xyz", "#r=q1YqU7JSMlTSUcpTslIqSCxJTVGqBQA"])
def test_a_damaged_link_is_reported_in_a_sentence(server: Server, open_page: OpenPage, fragment: str) -> None:
    page = open_page(f"{server.url}/{fragment}")
    expect(page.locator("#record-note")).to_contain_text("This link is damaged")


@pytest.mark.parametrize("path", ["/music", "/music/", "/"], ids=["kept", "kept, with a slash", "removed by the proxy"])
def test_the_page_works_behind_a_path_prefix(prefixed: Server, open_page: OpenPage, tune_file: Path, path: str) -> None:
    page = open_page(f"{prefixed.url}{path}")
    choose(page, tune_file)
    wait_for_result(page)
    assert page.get_attribute(".top nav a", "href") == "/music/docs"


def test_a_key_is_asked_for_and_kept_for_the_session_only(
    closed: Server, open_page: OpenPage, tune_file: Path, screenshots: Path
) -> None:
    page = open_page(closed.url)
    expect(page.locator("#key-dialog")).to_be_visible()
    page.screenshot(path=screenshots / "key.png")
    page.fill("#key", "wrong" * 8)
    page.click("#key-form .primary")
    expect(page.locator("#key-note")).to_be_visible()
    page.fill("#key", KEY)
    page.click("#key-form .primary")
    expect(page.locator("#model option")).not_to_have_count(0)
    choose(page, tune_file)
    wait_for_result(page)
    assert page.evaluate("[Object.values(sessionStorage), localStorage.length, document.cookie]") == [[KEY], 0, ""]
    assert KEY not in page.url
    assert KEY not in closed.log.read_text()
