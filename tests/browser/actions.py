"""What several tests do with the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, expect

_DROP = """([name, data]) => {
    const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name));
    for (const type of ["dragenter", "dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer }));
}"""


def choose(page: Page, *files: Path) -> None:
    """Add files to the queue, as the file dialog does."""
    page.set_input_files("#files", list(files))


def drop(page: Page, file: Path) -> None:
    """Drop a file onto the page."""
    page.evaluate(_DROP, [file.name, base64.b64encode(file.read_bytes()).decode()])


def wait_for_result(page: Page) -> None:
    """Wait until the selected recording is predicted, and its timeline is drawn."""
    expect(page.locator("#result")).to_have_attribute("data-state", "done", timeout=60_000)
    expect(page.locator("#areas canvas")).to_be_visible()
    wait_for_drawing(page)


def wait_for_drawing(page: Page) -> None:
    """Wait until what has changed on the page is drawn, which takes up to two frames."""
    page.evaluate("document.fonts.ready")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def states(page: Page) -> Sequence[str | None]:
    """Return the states of the recordings in the queue."""
    return [card.get_attribute("data-state") for card in page.locator(".card").all()]


def point_at(page: Page, seconds: float, duration_s: float) -> tuple[float, float]:
    """Return the position of a time on the timeline."""
    areas = page.locator("#areas")
    areas.scroll_into_view_if_needed()
    box = areas.bounding_box()
    assert box
    return box["x"] + box["width"] * seconds / duration_s, box["y"] + 100
