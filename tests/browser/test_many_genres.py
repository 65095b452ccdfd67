"""A result with 25 genres, parents and tags, as models with more labels return it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from tests.browser.actions import choose, wait_for_result
from tests.browser.conftest import OpenPage
from tests.harness.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.timing]

_LABELS = (
    *("ambient", "blues", "children", "classical", "country", "disco", "drum-and-bass", "electronic", "experimental"),
    *("folk", "funk", "gospel", "hiphop", "house", "indie", "jazz", "latin", "metal", "pop", "punk", "reggae", "rock"),
    *("singer-songwriter", "soul", "soundtrack"),
)
_DURATION_S = 200


@pytest.fixture
def result(rng: np.random.Generator) -> dict[str, Any]:
    n = _DURATION_S - 2
    t = np.linspace(0, 9, n)[:, None]
    speed, phase = rng.uniform(0.3, 1.6, 25), rng.uniform(0, 6, 25)
    weights = np.exp(3 * np.sin(t * speed + phase))
    rows = weights / weights.sum(axis=1, keepdims=True)
    leading = rows.argmax(axis=1)
    mean = rows.mean(axis=0)
    votes = np.bincount(leading, minlength=25) / n
    edges = [0, *(np.flatnonzero(np.diff(leading)) + 1).tolist(), n]

    def ranking(shares: Any) -> dict[str, Any]:
        order = np.argsort(-shares)
        top = [{"genre": _LABELS[i], "share": float(shares[i]), "windows": 1, "parent": "popular"} for i in order]
        return {"genre": top[0]["genre"], "share": top[0]["share"], "top_k": top}

    return {
        "track": {"filename": "x", "duration_s": _DURATION_S, "codec": "flac", "sample_rate_hz": 48000, "channels": 2},
        "model": {"name": "many", "version": "1", "window_s": 3.0, "hop_s": 1.0, "labels": _LABELS},
        "prediction": {
            "summed_score": ranking(mean),
            "majority_vote": ranking(votes),
            "agreement": bool(mean.argmax() == votes.argmax()),
            "confidence": 0.41,
            "in_domain": True,
        },
        "sections": [
            {"start_s": float(a), "end_s": float(b), "genre": _LABELS[leading[a]], "share": float(rows[a:b].max())}
            for a, b in pairwise(edges)
        ],
        "tags": {
            "track": [
                {"tag": "known genre", "kind": "other", "probability": 0.9},
                {"tag": "female voice", "kind": "voice", "probability": 0.83},
                {"tag": "sad music", "kind": "mood", "probability": 0.5, "unverified": True},
                {"tag": "guitar", "kind": "instrument", "probability": 0.12},
            ]
        },
        "windows": {
            "count": n,
            "silent": [],
            "start_s": list(range(n)),
            "genre": [_LABELS[i] for i in leading],
            "probabilities": rows.round(4).tolist(),
        },
        "timing_ms": {},
        "warnings": [],
    }


def test_all_of_25_genres_can_be_read(
    server: Server, open_page: OpenPage, tune_file: Path, result: dict[str, Any], screenshots: Path
) -> None:
    def respond(route: Route) -> None:
        body = json.dumps({"event": "result", "data": result}) + "\n"
        route.fulfill(status=200, content_type="application/x-ndjson", body=body)

    for size, name in (((1440, 900), "many-genres"), ((360, 740), "many-genres-phone")):
        page = open_page(server.url, size=size)
        page.route("**/v1/predict*", respond)
        choose(page, tune_file)
        wait_for_result(page)
        expect(page.locator("#genres tr")).to_have_count(10)
        page.click("#more")
        expect(page.locator("#genres tr")).to_have_count(25)
        shown = page.locator("#genres th").all_inner_texts()
        assert {text.split()[0] for text in shown} == set(_LABELS)
        assert all("popular" in text for text in shown)
        colours = page.evaluate(
            "[...document.querySelectorAll('#genres .swatch')].map((e) => getComputedStyle(e).backgroundColor)"
        )
        assert len(set(colours)) == 25
        expect(page.locator("#tags li")).to_have_text(["female voice 83 %", "sad music?"])
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        page.screenshot(path=screenshots / f"{name}.png", full_page=True)
        page.click("#share")
        expect(page.locator("#share")).to_contain_text("ink")
        assert len(page.url.partition("#")[2]) <= 8000
