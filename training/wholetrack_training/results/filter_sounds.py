"""What a network has learned to hear: for every convolution filter the moments of music that excite it most.

After the filter sounds of deepsound (2016): moments from different recordings, joined to one short sound per filter,
and a page to listen to them all.
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
from wholetrack_training.data.grid import window_at, window_starts
from wholetrack_training.data.tracks import DataError
from wholetrack_training.systems.recipe import Recipe

_log = logging.getLogger(__name__)

_MOMENT_S = 0.8
_FADE_MS = 30
_SOUND_RATE = 44100
_LONGEST_TRACK_S = 4 * 3600.0
_BATCH = 16


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """Where a filter is excited: how much, in which recording, and when, in seconds."""

    excitement: float
    recording: Path
    at_s: float


Filter = tuple[str, int]
"""Name of the layer and number of the filter in it."""


def loudest_moments(
    network: nn.Module, recipe: Recipe, recordings: Iterable[Path], decoder: FfmpegDecoder, *, moments: int
) -> dict[Filter, list[Moment]]:
    """For every filter the moments that excite it most, at most one of each recording, the strongest first.

    Args:
        network: trained by ``recipe``, with convolutions over time, or over bands and time.
        recipe: features and windows.
        recordings: of any format that the service accepts; others are reported and left out.
        decoder: opens them.
        moments: how many to keep of each filter.

    Raises:
        DataError: if no recording can be heard, or the network has no convolution.
    """
    best: dict[Filter, list[Moment]] = defaultdict(list)
    heard = 0
    for recording in recordings:
        try:
            frames = _frames(recording, recipe, decoder)
        except ServiceError as error:
            _log.warning("%s is left out: %s", recording, error.detail)
            continue
        heard += 1
        for filter_, excitement, at_s in _peaks(network, recipe, frames):
            kept = best[filter_]
            heapq.heappush(kept, Moment(excitement, recording, at_s))
            if len(kept) > moments:
                heapq.heappop(kept)
    if not heard:
        raise DataError("no recording can be heard")
    if not best:
        raise DataError("the network has no convolution")
    return {filter_: sorted(kept, reverse=True) for filter_, kept in best.items()}


def write_sounds(found: dict[Filter, list[Moment]], folder: Path, decoder: FfmpegDecoder) -> Path:
    """Write a sound file for every filter, and ``index.html`` to listen to them.

    Args:
        found: as :func:`loudest_moments` gives them.
        folder: where to; made if need be.
        decoder: whose ffmpeg cuts and encodes.

    Returns:
        The page.
    """
    AudioSegment.converter = str(decoder.ffmpeg.path)
    folder.mkdir(parents=True, exist_ok=True)
    cut = _cut({moment for moments in found.values() for moment in moments}, decoder)
    rows = []
    for (layer, number), moments in sorted(found.items()):
        sound = AudioSegment.empty()
        for moment in moments:
            sound += cut[moment]
        name = f"{layer.replace('.', '-')}-{number:03}.ogg"
        sound.export(folder / name, format="ogg", codec="libvorbis").close()
        where = "; ".join(f"{moment.recording.name} {moment.at_s:.1f} s" for moment in moments)
        rows.append(
            f"<tr><td>{html.escape(layer)}</td><td>{number}</td>"
            f'<td><audio controls preload="none" src="{html.escape(name)}"></audio></td>'
            f"<td>{html.escape(where)}</td></tr>"
        )
    page = folder / "index.html"
    page.write_text(_PAGE.format(rows="\n".join(rows)))
    return page


def _frames(recording: Path, recipe: Recipe, decoder: FfmpegDecoder) -> NDArray[np.float32]:
    stream = LogMel(recipe.features, recipe.audio.sample_rate).stream()
    rate = recipe.audio.sample_rate
    with decoder.open(recording, sample_rate=rate, max_duration_s=_LONGEST_TRACK_S) as decoding:
        frames = [stream.push(samples) for samples in decoding.blocks()]
        decoding.summary()
    return np.concatenate([*frames, stream.finish()])


def _peaks(network: nn.Module, recipe: Recipe, frames: NDArray[np.float32]) -> Iterator[tuple[Filter, float, float]]:
    """The strongest excitement of every filter in one recording, and when."""
    side_by_side = recipe.windows.model_copy(update={"hop_s": recipe.windows.window_s})
    starts = window_starts(len(frames), recipe.features, side_by_side, recipe.audio)
    cut = np.stack([window_at(frames, start, recipe.windows.frames) for start in starts])
    windows = torch.from_numpy(normalise(cut, recipe.features.normalisation))
    courses: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    with ExitStack() as hooks, torch.inference_mode():
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d):
                hooks.callback(layer.register_forward_hook(_listener(courses[name])).remove)
        for first in range(0, len(windows), _BATCH):
            network(windows[first : first + _BATCH])
    grid = FrameGrid.of(recipe.features, recipe.audio.sample_rate)
    for name, parts in courses.items():
        course = np.concatenate(parts)  # [windows, filters, steps]
        n_windows, n_filters, n_steps = course.shape
        by_filter = course.transpose(1, 0, 2).reshape(n_filters, n_windows * n_steps)
        for number, peak in enumerate(by_filter.argmax(axis=1)):
            window, step = divmod(int(peak), n_steps)
            at_s = grid.time_s(starts[window]) + (step + 0.5) / n_steps * recipe.windows.window_s
            yield (name, number), float(by_filter[number, peak]), at_s


def _listener(parts: list[NDArray[np.float32]]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def listen(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        course = output.amax(dim=2) if output.ndim == 4 else output
        parts.append(course.float().numpy())

    return listen


def _cut(moments: Iterable[Moment], decoder: FfmpegDecoder) -> dict[Moment, AudioSegment]:
    by_recording: dict[Path, list[Moment]] = defaultdict(list)
    for moment in moments:
        by_recording[moment.recording].append(moment)
    cut = {}
    for recording, chosen in by_recording.items():
        with decoder.open(recording, sample_rate=_SOUND_RATE, max_duration_s=_LONGEST_TRACK_S) as decoding:
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
<title>What the filters hear</title>
<style>body {{ font-family: sans-serif }} td {{ padding: 0 1em }}</style>
<h1>What the filters hear</h1>
<p>For every filter of every convolution the moments of music that excite it most, the strongest first.</p>
<table>
<tr><th>layer</th><th>filter</th><th>sound</th><th>moments</th></tr>
{rows}
</table>
</html>
"""
