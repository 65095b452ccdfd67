"""CPU time of the network for a 4-minute mp3, with the graph for strips and the one for single windows.

Both are measured by turns, with the network of another model, so that the ratios are not affected by changes in the
speed of the machine. Every session gets blocks of windows as a feature worker sends them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.records import benchmark_parser
from bench.song import SONG_SECONDS, make_song
from bench.spread import spread
from tests.harness.records import print_record
from wholetrack.contracts import Windows
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.decoding.samples import BLOCK_SAMPLES
from wholetrack.extraction.windows import WindowExtractor
from wholetrack.features.inputs import InputFeatures
from wholetrack.inference.bundle import BUILT_IN_MODELS, Bundle, load_bundles
from wholetrack.inference.session import Session, open_session
from wholetrack.settings import DeviceChoice, Settings

_MAX_DURATION_S = 3600


def blocks_of(bundle: Bundle, song: Path) -> list[Windows]:
    """Return the windows of a song, in the blocks that a feature worker sends."""
    features, rate = InputFeatures(bundle.card), bundle.card.audio.sample_rate
    with FfmpegDecoder(find_ffmpeg()).open(song, sample_rate=rate, max_duration_s=_MAX_DURATION_S) as decoding:
        samples = np.concatenate(list(decoding.blocks()))
        decoding.summary()
    extractor = WindowExtractor(features, features.grid(None), peaks_per_s=0, keep_silent=True)
    starts = range(0, len(samples), BLOCK_SAMPLES)
    blocks = [samples[start : start + BLOCK_SAMPLES] for start in starts]
    return [extractor.push(block, is_last=i == len(blocks) - 1).rows for i, block in enumerate(blocks)]


def network_cpu_s(session: Session, blocks: Sequence[Windows]) -> float:
    """Classify all blocks, and return the CPU time in seconds."""
    began = time.process_time()
    for block in blocks:
        for first in range(0, len(block), session.max_batch):
            session.run(block[first : first + session.max_batch])
    return time.process_time() - began


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--model", required=True, help="a model with a graph for strips")
    parser.add_argument("--models-dir", type=Path, help="folder of the model, unless it is among the built-in ones")
    parser.add_argument("--other", default="wholetrack-crnn-gtzan", help="a model to compare with")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    folders = [BUILT_IN_MODELS, *([options.models_dir] if options.models_dir else [])]
    bundles, settings = load_bundles(*folders), Settings(device=DeviceChoice.CPU)
    measured, other = bundles[options.model], bundles[options.other]
    networks = {"strips": measured, "single_windows": replace(measured, strips=None), "other": other}
    sessions = {name: open_session(bundle, settings) for name, bundle in networks.items()}
    with tempfile.TemporaryDirectory() as name:
        song = Path(name, "song.mp3")
        make_song(song)
        blocks = {name: blocks_of(bundle, song) for name, bundle in networks.items()}
    costs: dict[str, list[float]] = {name: [] for name in networks}
    # The first round warms up.
    for _ in range(options.repeats + 1):
        for name, session in sessions.items():
            costs[name].append(network_cpu_s(session, blocks[name]))
    figures = {
        "model": options.model,
        "other": options.other,
        "song_seconds": SONG_SECONDS,
        "windows": sum(map(len, blocks["strips"])),
        "network_cpu_s": {name: spread(measured[1:]) for name, measured in costs.items()},
        "ratio_to_other": {
            name: spread([own / reference for own, reference in zip(costs[name][1:], costs["other"][1:], strict=True)])
            for name in ("strips", "single_windows")
        },
    }
    print_record("strips", figures, folder=options.record)


if __name__ == "__main__":
    main()
