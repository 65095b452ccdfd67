"""The taggers that teach, with their published weights: what they say of real recordings is plausible."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack_training.errors import DataError
from wholetrack_training.systems.taggers.tagger import TAGGERS, TaggerOutputs, open_tagger
from wholetrack_training.systems.taggers.weights import read_weights

pytestmark = [pytest.mark.torch, pytest.mark.data]


def ask(music: Path, name: str, track: str, seconds: int = 12) -> tuple[tuple[str, ...], TaggerOutputs]:
    tagger = open_tagger(name, music / "pretrained")
    path = music / "audio" / "gtzan" / track.split(".", maxsplit=1)[0] / f"{track}.flac"
    with (
        closing(FfmpegDecoder(find_ffmpeg())) as decoder,
        decoder.open(path, sample_rate=tagger.sample_rate, max_duration_s=60) as decoding,
    ):
        samples = np.concatenate(list(decoding.blocks()))[: seconds * tagger.sample_rate]
        decoding.summary()
    centres = np.arange(1.5, seconds - 1, 1.0).tolist()
    return tagger.labels, tagger.outputs(samples, centres)


@pytest.mark.parametrize(
    ("name", "track", "tag"),
    [
        ("mn04", "metal.00000", "Heavy metal"),
        ("mn04", "classical.00000", "Orchestra"),
        ("msd_musicnn", "metal.00000", "metal"),
        ("msd_musicnn", "classical.00000", "instrumental"),
        ("msd_fcn", "hiphop.00000", "electronic"),
    ],
)
def test_the_tags_of_a_real_clip_are_plausible(music: Path, name: str, track: str, tag: str) -> None:
    labels, found = ask(music, name, track)
    strongest = [labels[i] for i in np.argsort(-found.logits.mean(0))[:5]]
    assert tag in strongest


def test_musicnn_says_what_its_authors_published(music: Path) -> None:
    _, found = ask(music, "msd_musicnn", "reggae.00000")
    with np.load(music / "pretrained" / "gtzan-taggrams.npz") as published:
        expected = published["reggae.00000"][: len(found.logits)].astype(np.float64)
    probabilities = 1 / (1 + np.exp(-found.logits[: len(expected)].astype(np.float64)))
    # Their decoder and resampler differ.
    assert np.corrcoef(probabilities.ravel(), expected.ravel())[0, 1] > 0.95


def test_a_short_recording_is_repeated_and_windows_stay_inside(music: Path) -> None:
    tagger = open_tagger("mn04", music / "pretrained")
    samples = np.random.default_rng(0).normal(0, 0.1, tagger.sample_rate).astype(np.float32)
    found = tagger.outputs(samples, [0.5, 100.0])
    assert found.logits.shape == (2, len(tagger.labels))
    assert found.embedding.shape == (2, 384)


def test_an_unknown_tagger_and_missing_weights_are_refused(music: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose from mn04, msd_musicnn, msd_fcn"):
        open_tagger("jamendo_fcn", music / "pretrained")
    with pytest.raises(DataError, match="does not hold the weights"):
        read_weights(tmp_path / "missing.npz")
    assert TAGGERS == ("mn04", "msd_musicnn", "msd_fcn")
