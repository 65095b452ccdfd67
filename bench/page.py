"""Time from choosing a ten-minute recording on the page until the first probabilities are on the screen."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from bench.records import benchmark_parser
from bench.song import make_song
from bench.spread import spread
from tests.browser.chromium import find_chromium
from tests.harness.recordings import make_long_recording
from tests.harness.records import print_record
from tests.harness.server import running_server

_MINUTES = 10


def measure_once(browser: Browser, url: str, recording: Path) -> dict[str, float]:
    """Return the seconds until the first probabilities, and until the verdict, are on the screen of a fresh page."""
    page = browser.new_page()
    page.goto(url)
    page.wait_for_selector("#model option", state="attached")
    began = time.perf_counter()
    page.set_input_files("#files", recording)
    page.wait_for_selector("#areas canvas")
    first_s = time.perf_counter() - began
    page.wait_for_selector("#result[data-state=done]")
    verdict_s = time.perf_counter() - began
    page.close()
    return {"first_probabilities_s": first_s, "verdict_s": verdict_s}


def measure(folder: Path, repeats: int) -> dict[str, object]:
    """Measure on one server and browser; the first round warms up."""
    song, recording, server_folder = folder / "song.mp3", folder / "long.mp3", folder / "server"
    make_song(song)
    make_long_recording(song, recording, _MINUTES)
    server_folder.mkdir()
    with running_server(server_folder) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        rounds = [measure_once(browser, server.url, recording) for _ in range(repeats + 1)][1:]
        browser.close()
    return {name: spread([one[name] for one in rounds]) for name in rounds[0]}


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="number of measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.repeats)
    print_record("page", {"minutes": _MINUTES, **figures}, folder=options.record)


if __name__ == "__main__":
    main()
