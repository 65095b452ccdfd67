"""``teach`` stores what taggers say about a folder of recordings, and ``distil`` learns from it.

Small networks stand in for the taggers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from tests.harness.recordings import wav_bytes

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch
from torch import Tensor, nn

from tests.wholetrack_training.mn04_weights import write_mn04
from wholetrack_training.cli import app
from wholetrack_training.data.teaching_store import TaughtRecording, TeachingStore
from wholetrack_training.systems.taggers import front_ends, musicnn, tagger
from wholetrack_training.systems.taggers.tagger import Tagger, TaggerOutputs

pytestmark = pytest.mark.torch

RATE = 22050
N_LABELS = 4


class Loudness(nn.Module):
    """Tags and an embedding that consist of the means of bands, repeated as often as necessary."""

    def __init__(self, n_labels: int, length: int) -> None:
        super().__init__()
        self.n_labels = n_labels
        self.length = length

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        means = windows.mean(dim=1).repeat(1, 5)
        return means[:, : self.n_labels], means[:, -self.length :]


def stand_in(name: str, _weights: Path) -> Tagger:
    # What is learned from mn04 has the size of its embedding.
    network = Loudness(N_LABELS, 384 if name == "mn04" else 3)
    labels = tuple(f"tag {i}" for i in range(N_LABELS))
    return Tagger(name, labels, 16000, front_ends.MUSICNN, musicnn.FRAMES, 3.0, network)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagger, "open_tagger", stand_in)


@pytest.fixture
def music(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    """A recording of nine seconds, one of seven in a subfolder, and two files that cannot be used."""
    music = tmp_path / "music"
    (music / "more").mkdir(parents=True)
    (music / "long.wav").write_bytes(wav_bytes(tune[: 9 * RATE], RATE))
    (music / "more" / "song.wav").write_bytes(wav_bytes(tune[RATE : 8 * RATE], RATE))
    (music / "short.wav").write_bytes(wav_bytes(tune[: 2 * RATE], RATE))
    (music / "notes.txt").write_text("not music")
    return music


def assert_similar(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Check that two arrays differ only by resampling, which affects the highest frequencies, and by rounding."""
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def run(command: str, *arguments: Path | str) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def teach(music: Path, tmp_path: Path, *options: str) -> dict[str, TaughtRecording]:
    """Run ``teach`` and return what it stored, by name."""
    store = tmp_path / "store"
    taught = run("teach", music, "--store", store, "--weights", tmp_path, *options)
    assert taught.exit_code == 0, taught.output
    found = {recording.name: recording for recording in TeachingStore(store).recordings()}
    n_windows = sum(len(recording.start_s) for recording in found.values())
    assert taught.stdout.splitlines()[-1] == f"{len(found)} recordings, {n_windows} windows"
    return found


def test_the_store_has_what_each_tagger_says_about_each_recording(
    music: Path, tmp_path: Path, tune: NDArray[np.float32]
) -> None:
    found = teach(music, tmp_path, "--musicnn-every", "2")
    assert set(found) == {"long.wav", "more/song.wav"}
    long = found["long.wav"]
    assert long.start_s.tolist() == [0.0, 3.0, 6.0]
    assert found["more/song.wav"].start_s.tolist() == [0.0, 3.0]
    assert_similar(long.samples(RATE, RATE), tune[RATE : 2 * RATE])
    assert set(long.targets) == set(tagger.TAGGERS)
    for name, targets in long.targets.items():
        windows = [0, 2] if name == "msd_musicnn" else [0, 1, 2]
        assert targets.windows.tolist() == windows
        network = stand_in(name, tmp_path)
        samples = soxr.resample(tune[: 9 * RATE], RATE, network.sample_rate)
        expected = network.outputs(samples, [3.0 * window + 1.5 for window in windows])
        assert_similar(targets.logits, expected.logits)
        assert_similar(targets.embedding, expected.embedding)


def test_only_the_middle_of_a_long_recording_is_used(music: Path, tmp_path: Path, tune: NDArray[np.float32]) -> None:
    long = teach(music, tmp_path, "--max-s", "3")["long.wav"]
    assert long.start_s.tolist() == [0.0]
    assert long.pcm.stat().st_size == 2 * 3 * RATE
    assert_similar(long.samples(RATE, RATE), tune[4 * RATE : 5 * RATE])
    assert all(targets.windows.tolist() == [0] for targets in long.targets.values())
    assert set(long.targets) == set(tagger.TAGGERS)


def test_a_repeated_run_adds_what_is_missing(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(music, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    (music / "again.wav").write_bytes((music / "long.wav").read_bytes())
    asked: list[str] = []
    outputs = Tagger.outputs

    def counted(self: Tagger, samples: NDArray[np.float32], centres_s: Sequence[float]) -> TaggerOutputs:
        asked.append(self.name)
        return outputs(self, samples, centres_s)

    monkeypatch.setattr(Tagger, "outputs", counted)
    assert set(teach(music, tmp_path)) == {"again.wav", "long.wav", "more/song.wav"}
    assert sorted(asked) == sorted(tagger.TAGGERS)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_network_is_taught_from_the_store(music: Path, tmp_path: Path) -> None:
    teach(music, tmp_path)
    write_mn04(tmp_path, n_labels=N_LABELS)
    folder = tmp_path / "run"
    taught = run("distil", folder, "--store", tmp_path / "store", "--weights", tmp_path, "--steps", "1")
    assert taught.exit_code == 0, taught.output
    assert taught.stdout.endswith(f"taught for 1 steps: {folder / 'music.pt'}\n")
    weights = torch.load(folder / "music.pt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in weights.values())


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not music")
    for folder, complaint in ((tmp_path / "none", "is not a folder"), (tmp_path, "holds no taught recordings")):
        refused = run("teach", folder, "--store", tmp_path / "store", "--weights", tmp_path)
        assert refused.exit_code == 1
        assert complaint in refused.stderr
