"""Sounds other than music are out of domain and get a low confidence; music is in domain."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from tests.harness.recordings import Recorder
from wholetrack.contracts import WarningCode
from wholetrack.pipeline import Pipeline

# For each model: the largest share of GTZAN's clips that are out of domain, and how many of the six whole recordings
# are in domain.
BOUNDS = {"wholetrack-crnn-gtzan": (0.02, 6), "wholetrack-crnn": (0.14, 4)}
MAX_CONFIDENCE = 0.3
SOUNDS = {
    "white noise": "anoisesrc=color=white:amplitude=0.3",
    "pink noise": "anoisesrc=color=pink:amplitude=0.3",
    "faint noise": "anoisesrc=color=white:amplitude=0.001",
    "a sine": "sine=frequency=440",
    "a low sine": "sine=frequency=100",
    "hum": "aevalsrc=0.3*sin(2*PI*50*t)+0.2*sin(2*PI*100*t)+0.1*sin(2*PI*150*t)+0.05*sin(2*PI*250*t)",
    "clicks": r"aevalsrc=0.5*lt(mod(t\,1)\,0.01)",
    "silence": "anullsrc=sample_rate=22050",
}
TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it "
    "was the epoch of belief, it was the epoch of incredulity, it was the season of light."
)


@pytest.mark.parametrize("model", list(BOUNDS))
@pytest.mark.parametrize("name", list(SOUNDS))
def test_a_sound_that_is_not_music_is_out_of_domain(
    name: str, model: str, pipeline: Pipeline, recorder: Recorder, tmp_path: Path
) -> None:
    sound = tmp_path / "sound.wav"
    recorder.run("-f", "lavfi", "-i", SOUNDS[name], "-t", "15", sound)
    prediction = pipeline.predict(sound, model=model, max_duration_s=60)
    assert prediction.in_domain is False
    assert prediction.confidence < MAX_CONFIDENCE
    # Of a silent track, another warning says that it has no genre.
    expected = WarningCode.SILENT_TRACK if name == "silence" else WarningCode.OUT_OF_DOMAIN
    assert expected in [warning.code for warning in prediction.warnings]


@pytest.mark.espeak
@pytest.mark.parametrize("model", list(BOUNDS))
@pytest.mark.parametrize("voice", ["en", "en+f3", "en-us", "en+m3", "de", "fr", "es"])
def test_speech_is_out_of_domain(voice: str, model: str, pipeline: Pipeline, tmp_path: Path) -> None:
    sound = tmp_path / "speech.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-w", str(sound), TEXT], check=True)
    prediction = pipeline.predict(sound, model=model, max_duration_s=60)
    assert prediction.in_domain is False, (prediction.summed_score.genre, prediction.confidence)
    assert prediction.confidence < MAX_CONFIDENCE


@pytest.mark.data
@pytest.mark.parametrize("model", list(BOUNDS))
def test_music_is_in_domain(model: str, pipeline: Pipeline, music: Path) -> None:
    max_outside, min_inside = BOUNDS[model]
    with (music / "tracks.csv").open() as table:
        clips = [music / row["audio"] for row in csv.DictReader(table) if row["audio"]]
    outside = [clip.name for clip in clips if not pipeline.predict(clip, model=model, max_duration_s=60).in_domain]
    assert len(outside) <= max_outside * len(clips), outside
    recordings = [path for path in (music / "audio/full").iterdir() if path.suffix in {".mp3", ".ogg"}]
    predictions = {path.name: pipeline.predict(path, model=model, max_duration_s=600) for path in recordings}
    inside = [name for name, found in predictions.items() if found.in_domain and not found.warnings]
    assert len(inside) >= min_inside, inside
