"""The timeline of a prediction as an SVG picture: the probabilities of all genres over time, and the sections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wholetrack.api.schemas import PredictionResponse

_PALETTE: list[str] = json.loads((Path(__file__).parent / "palette.json").read_text())
_WIDTH, _HEIGHT = 1200, 480
_LEFT, _RIGHT = 48, _WIDTH - 48
_TOP, _BOTTOM = 132, 352
_SECTIONS_TOP, _SECTIONS_BOTTOM = 360, 384
# More points than pixels would only make the file larger.
_MAX_POINTS = 600
_TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_MAX_TICKS = 12
_LEGEND_ENTRIES = 8
# The width of a digit of the font in relation to its size is about a half; letters are a little wider.
_LETTER_WIDTH = 0.56


def timeline_svg(content: PredictionResponse) -> str:
    """Return the timeline of a prediction that has the probabilities of its windows."""
    scale = (_RIGHT - _LEFT) / max(content.track.duration_s, 1e-9)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="system-ui, sans-serif" role="img">',
        f"<title>{escape(_verdict(content))}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#faf8f4"/>',
        _text(_LEFT, 62, _verdict(content), size=34, family="Georgia, serif"),
        _text(_LEFT, 94, _subtitle(content), size=15, fill="#625d55"),
        *_areas(content, scale),
        *_sections(content, scale),
        *_ticks(content.track.duration_s, scale),
        *_legend(content),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _verdict(content: PredictionResponse) -> str:
    summed, voted = content.prediction.summed_score, content.prediction.majority_vote
    if summed.genre is None:
        return "Silent"
    if summed.genre == voted.genre:
        return f"{summed.genre}, {summed.share:.0%}"
    return f"{summed.genre} by score, {voted.genre} by vote"


def _subtitle(content: PredictionResponse) -> str:
    name = f"{content.track.filename} · " if content.track.filename else ""
    in_domain = "" if content.prediction.in_domain is not False else " · unlike the training data"
    return (
        f"{name}{_clock(content.track.duration_s)} · confidence {content.prediction.confidence:.0%} · "
        f"{content.model.name} {content.model.version}{in_domain}"
    )


def _areas(content: PredictionResponse, scale: float) -> Iterator[str]:
    """Yield one stacked area per genre, the one with the largest mean probability at the bottom."""
    probabilities = np.array(content.windows.probabilities)
    order = _descending(probabilities.mean(axis=0))
    length_s = content.model.step_s or content.model.window_s
    centre_s = np.minimum(np.array(content.windows.start_s) + length_s / 2, content.track.duration_s)
    every = -(-len(centre_s) // _MAX_POINTS)
    starts = np.arange(0, len(centre_s), every)
    counts = np.diff([*starts, len(centre_s)])
    x = _LEFT + np.add.reduceat(centre_s, starts) / counts * scale
    shares = np.add.reduceat(probabilities[:, order], starts) / counts[:, None]
    x = np.concatenate([[_LEFT], x, [_RIGHT]])
    shares = np.concatenate([shares[:1], shares, shares[-1:]])
    edges = np.concatenate([np.zeros((len(shares), 1)), shares.cumsum(axis=1)], axis=1)
    y = _BOTTOM - edges / edges[:, -1:] * (_BOTTOM - _TOP)
    for i, label in enumerate(order):
        yield (
            f'<path d="{_outline(x, y[:, i], y[:, i + 1])}" fill="{_colour(label)}" stroke="#faf8f4" '
            'stroke-width=".8"/>'
        )


def _outline(x: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> str:
    points = [*zip(x, upper, strict=True), *zip(x[::-1], lower[::-1], strict=True)]
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points) + "Z"


def _sections(content: PredictionResponse, scale: float) -> Iterator[str]:
    for section in content.sections:
        left, right = _LEFT + section.start_s * scale, _LEFT + section.end_s * scale
        colour = _colour(content.model.labels.index(section.genre))
        height = _SECTIONS_BOTTOM - _SECTIONS_TOP
        yield (
            f'<rect x="{left:.1f}" y="{_SECTIONS_TOP}" width="{max(right - left - 1, 1):.1f}" height="{height}" rx="2" '
            f'fill="{colour}"/>'
        )
        if (right - left) > len(section.genre) * 13 * _LETTER_WIDTH + 16:
            yield _text(left + 8, _SECTIONS_BOTTOM - 8, section.genre, size=13, fill=_ink_on(colour))


def _ticks(duration_s: float, scale: float) -> Iterator[str]:
    step = next((step for step in _TICK_STEPS_S if duration_s / step <= _MAX_TICKS), _TICK_STEPS_S[-1])
    for second in np.arange(0, duration_s + 1e-9, step):
        yield _text(_LEFT + float(second) * scale, 404, _clock(float(second)), size=12, fill="#625d55")


def _legend(content: PredictionResponse) -> Iterator[str]:
    """Yield the genres with the largest mean probability."""
    means = np.array(content.windows.probabilities).mean(axis=0)
    x = float(_LEFT)
    for i in _descending(means)[:_LEGEND_ENTRIES]:
        text = f"{content.model.labels[i]} {means[i]:.0%}"
        yield f'<rect x="{x:.1f}" y="436" width="14" height="14" rx="3" fill="{_colour(i)}"/>'
        yield _text(x + 20, 448, text, size=14)
        x += 44 + len(text) * 14 * _LETTER_WIDTH


def _descending(means: NDArray[np.float64]) -> list[int]:
    order: list[int] = np.argsort(-means, kind="stable").tolist()
    return order


def _text(x: float, y: float, text: str, *, size: int, fill: str = "#1d1a16", family: str | None = None) -> str:
    font = f' font-family="{family}"' if family else ""
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" fill="{fill}"{font}>{escape(text)}</text>'


def _colour(index: int) -> str:
    return _PALETTE[index % len(_PALETTE)]


def _ink_on(colour: str) -> str:
    """Return black or white, whichever has more contrast with a colour."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return "#1d1a16" if luminance > 0.18 else "#ffffff"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
