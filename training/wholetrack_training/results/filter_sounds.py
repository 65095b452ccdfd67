"""Convolution filters made audible: for every filter, the moments of music that activate it most.

As in the filter sounds of deepsound (2016), moments from different recordings are joined into one short sound per
filter, and an HTML page plays them all.
"""

from __future__ import annotations

import heapq
import html
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydub import AudioSegment
from torch import Tensor, nn

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.errors import ServiceError
from wholetrack.features.grid import FrameGrid
from wholetrack.features.logmel import LogMel
from wholetrack.features.normalise import normalise
from wholetrack_training.data.windows import window_at, window_starts
from wholetrack_training.errors import DataError
from wholetrack_training.systems.recipe import Recipe

_log = logging.getLogger(__name__)

_MOMENT_S = 0.8
_FADE_MS = 30
_SOUND_RATE = 44100
_MAX_TRACK_S = 4 * 3600.0
_BATCH = 16


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """A high activation of a filter.

    Attributes:
        activation: Output of the filter.
        recording: The recording.
        at_s: Time in the recording, in seconds.
    """

    activation: float
    recording: Path
    at_s: float


Filter = tuple[str, int]
"""Name of a layer, and index of a filter in it."""


def strongest_moments(
    network: nn.Module, recipe: Recipe, recordings: Iterable[Path], decoder: FfmpegDecoder, *, moments: int
) -> dict[Filter, list[Moment]]:
    """Return the moments that activate every filter most, at most one per recording, the strongest first.

    Args:
        network: A network trained with ``recipe``, with convolutions over time, or over bands and time.
        recipe: Features and windows.
        recordings: Files in any format that the service accepts; others are logged and skipped.
        decoder: Decodes them.
        moments: Number of moments per filter.

    Raises:
        DataError: If no recording can be decoded, or the network has no convolution.
    """
    best: dict[Filter, list[Moment]] = defaultdict(list)
    n_decoded = 0
    for recording in recordings:
        try:
            frames = _frames(recording, recipe, decoder)
        except ServiceError as error:
            _log.warning("Skipping %s: %s", recording, error.detail)
            continue
        n_decoded += 1
        for filter_, activation, at_s in _peaks(network, recipe, frames):
            kept = best[filter_]
            heapq.heappush(kept, Moment(activation, recording, at_s))
            if len(kept) > moments:
                heapq.heappop(kept)
    if not n_decoded:
        raise DataError("no recording can be decoded")
    if not best:
        raise DataError("the network has no convolution")
    return {filter_: sorted(kept, reverse=True) for filter_, kept in best.items()}


def write_sounds(found: dict[Filter, list[Moment]], folder: Path, decoder: FfmpegDecoder) -> Path:
    """Write a sound file for every filter, and ``index.html`` to play them.

    Args:
        found: The result of :func:`strongest_moments`.
        folder: Destination; created if missing.
        decoder: Decodes the recordings; its ffmpeg also encodes the sounds.

    Returns:
        Path of the page.
    """
    AudioSegment.converter = str(decoder.ffmpeg.path)
    folder.mkdir(parents=True, exist_ok=True)
    cut = _cut({moment for moments in found.values() for moment in moments}, decoder)
    tiles: dict[str, list[str]] = defaultdict(list)
    for (layer, number), moments in sorted(found.items()):
        sound = AudioSegment.empty()
        for moment in moments:
            sound += cut[moment]
        name = f"{layer.replace('.', '-')}-{number:03}.ogg"
        sound.export(folder / name, format="ogg", codec="libvorbis").close()
        tiles[layer].append(_tile(layer, number, name, moments))
    sections = (f"<h2>{html.escape(layer)}</h2>\n<ol>\n{''.join(of_layer)}</ol>" for layer, of_layer in tiles.items())
    page = folder / "index.html"
    page.write_text(_PAGE.format(sections="\n".join(sections)))
    return page


def _tile(layer: str, number: int, sound: str, moments: list[Moment]) -> str:
    where = "".join(
        f"<li><span>{html.escape(moment.recording.name)}</span> {_minutes(moment.at_s)}</li>" for moment in moments
    )
    count = "1 moment" if len(moments) == 1 else f"{len(moments)} moments"
    return (
        f"<li><h3>Filter {number}</h3>"
        f'<audio controls preload="none" src="{html.escape(sound)}" aria-label="{html.escape(layer)}, filter {number}">'
        f"</audio><details><summary>{count}</summary><ul>{where}</ul></details></li>\n"
    )


def _minutes(seconds: float) -> str:
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes}:{tenths / 10:04.1f}"


def _frames(recording: Path, recipe: Recipe, decoder: FfmpegDecoder) -> NDArray[np.float32]:
    stream = LogMel(recipe.features, recipe.audio.sample_rate).stream()
    rate = recipe.audio.sample_rate
    with decoder.open(recording, sample_rate=rate, max_duration_s=_MAX_TRACK_S) as decoding:
        frames = [stream.push(samples) for samples in decoding.blocks()]
        decoding.summary()
    return np.concatenate([*frames, stream.finish()])


def _peaks(network: nn.Module, recipe: Recipe, frames: NDArray[np.float32]) -> Iterator[tuple[Filter, float, float]]:
    """Yield the highest activation of every filter in one recording, and its time in seconds."""
    no_overlap = recipe.windows.model_copy(update={"hop_s": recipe.windows.window_s})
    starts = window_starts(len(frames), recipe.features, no_overlap, recipe.audio)
    cut = np.stack([window_at(frames, start, recipe.windows.frames) for start in starts])
    windows = torch.from_numpy(normalise(cut, recipe.features.normalisation))
    outputs: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    with ExitStack() as hooks, torch.inference_mode():
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d):
                hooks.callback(layer.register_forward_hook(_collector(outputs[name])).remove)
        for first in range(0, len(windows), _BATCH):
            network(windows[first : first + _BATCH])
    grid = FrameGrid.of(recipe.features, recipe.audio.sample_rate)
    for name, parts in outputs.items():
        activations = np.concatenate(parts)  # [windows, filters, steps]
        n_windows, n_filters, n_steps = activations.shape
        by_filter = activations.transpose(1, 0, 2).reshape(n_filters, n_windows * n_steps)
        for number, peak in enumerate(by_filter.argmax(axis=1)):
            window, step = divmod(int(peak), n_steps)
            at_s = grid.time_s(starts[window]) + (step + 0.5) / n_steps * recipe.windows.window_s
            yield (name, number), float(by_filter[number, peak]), at_s


def _collector(parts: list[NDArray[np.float32]]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """Return a forward hook that appends the activation of each filter over time, its maximum over the bands."""

    def collect(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        over_time = output.amax(dim=2) if output.ndim == 4 else output
        parts.append(over_time.float().numpy())

    return collect


def _cut(moments: Iterable[Moment], decoder: FfmpegDecoder) -> dict[Moment, AudioSegment]:
    by_recording: dict[Path, list[Moment]] = defaultdict(list)
    for moment in moments:
        by_recording[moment.recording].append(moment)
    cut = {}
    for recording, chosen in by_recording.items():
        with decoder.open(recording, sample_rate=_SOUND_RATE, max_duration_s=_MAX_TRACK_S) as decoding:
            samples = np.concatenate(list(decoding.blocks()))
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        whole = AudioSegment(data=pcm, sample_width=2, frame_rate=_SOUND_RATE, channels=1)
        for moment in chosen:
            begin_ms = int(1000 * max(0.0, moment.at_s - _MOMENT_S / 2))
            cut[moment] = whole[begin_ms : begin_ms + int(1000 * _MOMENT_S)].fade_in(_FADE_MS).fade_out(_FADE_MS)
    return cut


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Filter sounds</title>
<style>
:root {{ --paper: #faf8f4; --ink: #1d1a16; --soft: #625d55; --line: #e4dfd5; color-scheme: light dark }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #16141a; --ink: #f2eee7; --soft: #a8a2ae; --line: #2e2a35 }}
}}
body {{ margin: 0; padding: clamp(20px, 5vw, 72px); background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }}
h1, h2 {{ font-family: Georgia, serif; font-weight: 400; letter-spacing: -.02em; line-height: 1 }}
h1 {{ font-size: clamp(48px, 8vw, 112px); margin: 0 }}
h2 {{ font-size: 32px; margin: 64px 0 20px }}
h3 {{ font-size: 16px; margin: 0 0 10px }}
p, summary, details {{ color: var(--soft) }}
p {{ max-width: 38em; font-size: 19px }}
ol, ul {{ list-style: none; margin: 0; padding: 0 }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 16px }}
ol > li {{ border: 1.5px solid var(--line); border-radius: 14px; padding: 16px; min-width: 0 }}
audio {{ width: 100%; height: 40px; display: block; margin-bottom: 10px }}
summary {{ cursor: pointer; padding: 4px 0 }}
li li {{ font-size: 14px; overflow-wrap: anywhere }}
</style>
<h1>Filter sounds</h1>
<p>What each convolution filter of the network responds to: the moments of music that activate it most, the strongest
first.</p>
{sections}
</html>
"""
