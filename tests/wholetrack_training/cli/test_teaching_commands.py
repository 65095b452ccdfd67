"""``collect``, ``teach-music`` and ``teach-folds``; small networks stand in for the taggers."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch
from torch import Tensor, nn

from tests.wholetrack_training.mn04_weights import write_mn04
from wholetrack_training.cli import app
from wholetrack_training.data.audio_pool import POOL_RATE, read_pool
from wholetrack_training.fitting import fold_training, music_stage, teachers
from wholetrack_training.fitting.joint_stage import JointPlan
from wholetrack_training.fitting.label_stage import LabelPlan
from wholetrack_training.systems.checkpoints import load_network
from wholetrack_training.systems.taggers import front_ends, musicnn
from wholetrack_training.systems.taggers.tagger import Tagger
from wholetrack_training.systems.taxonomy import AUDIOSET, GTZAN, MSD, kept_tags

pytestmark = pytest.mark.torch

RATE = 22050
AUDIOSET_TAGS = ("Music", *dict.fromkeys(tag for tags in AUDIOSET.values() for tag in tags), "Scary music")
MSD_TAGS = tuple(dict.fromkeys(tag for tags in MSD.values() for tag in tags))
VERSION_1 = PROJECT / "tests/folds"


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
    labels, length = (AUDIOSET_TAGS, 384) if name == "mn04" else (MSD_TAGS, 3)
    return Tagger(name, labels, 16000, front_ends.MUSICNN, musicnn.FRAMES, 3.0, Loudness(len(labels), length))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "open_tagger", stand_in)
    monkeypatch.setattr(music_stage, "MusicPlan", partial(music_stage.MusicPlan, rounds=1, steps=2, stretches=1))
    joint = partial(JointPlan, steps=2, stretches=1, recordings=4, spectrograms=8)
    monkeypatch.setattr(fold_training, "JointPlan", joint)
    monkeypatch.setattr(fold_training, "LabelPlan", partial(LabelPlan, versions=0))


@pytest.fixture
def music(tmp_path: Path, tune: NDArray[np.float32]) -> Path:
    """Two recordings, one of them in a subfolder, and two files that cannot be used."""
    music = tmp_path / "music"
    (music / "more").mkdir(parents=True)
    (music / "long.wav").write_bytes(wav_bytes(tune[: 9 * RATE], RATE))
    (music / "more" / "song.wav").write_bytes(wav_bytes(tune[RATE : 8 * RATE], RATE))
    (music / "short.wav").write_bytes(wav_bytes(tune[: RATE // 2], RATE))
    (music / "notes.txt").write_text("not music")
    return music


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small GTZAN: a spectrogram and a recording of each genre in each of two folds, and musicnn's tags."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    names = [f"{genre}.{fold:05}" for genre in GTZAN for fold in (1, 2)]
    rows = []
    for name in names:
        genre, fold = name.split(".")
        (folder / "audio" / genre).mkdir(parents=True, exist_ok=True)
        hz = 110 * 2 ** (GTZAN.index(genre) / 2)
        tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(3 * RATE) / RATE) + rng.normal(0, 0.01, 3 * RATE)
        (folder / "audio" / genre / f"{name}.wav").write_bytes(wav_bytes(tone.astype(np.float32), RATE))
        rows.append((name, genre, name, int(fold), "", ""))
    with (folder / "tracks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("track", "genre", "artist", "fold", "duplicate_of", "audio"), *rows])
    mel = rng.integers(0, 256, (len(names), 128, 387), dtype=np.uint8)
    genres = np.array([name.split(".")[0] for name in names])
    np.savez(folder / "gtzan-mel.npz", mel=mel, track=np.array(names), genre=genres)
    write_mn04(folder, n_labels=len(AUDIOSET_TAGS), labels=AUDIOSET_TAGS)
    tags = {name: rng.random((28, len(MSD_TAGS)), dtype=np.float32) for name in names}
    np.savez(folder / "gtzan-taggrams.npz", **tags)  # type: ignore[arg-type]
    return folder


def run(command: str, *arguments: Path | str) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def test_recordings_are_collected_in_a_pool(music: Path, tmp_path: Path) -> None:
    done = run("collect", music, "--to", tmp_path / "pool", "--max-s", "5")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "2 of 4 recordings, 0.0 hours"
    pool = read_pool(tmp_path / "pool")
    assert pool.names == ("long.wav", "more/song.wav")
    assert np.diff(pool.offsets).tolist() == [5 * POOL_RATE, 5 * POOL_RATE]


@pytest.mark.long
def test_networks_are_trained_from_recordings(music: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run("collect", music, "--to", tmp_path / "pool").exit_code == 0
    assert run("collect", data / "audio", "--to", tmp_path / "gtzan").exit_code == 0
    taught = run("teach-music", folder, "--pool", tmp_path / "pool", "--weights", data, "--device", "cpu")
    assert taught.exit_code == 0, taught.output
    options = {"pool": tmp_path / "pool", "weights": data, "gtzan": tmp_path / "gtzan", "data": data}
    options |= {"folds": VERSION_1, "version-1": VERSION_1 / "fold-2/1", "fold": Path("1"), "device": Path("cpu")}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    trained = run("teach-folds", folder, *arguments)
    assert trained.exit_code == 0, trained.output
    network = load_network(folder / "fold-1.pt")
    assert network.head.tag_map.labels == kept_tags(AUDIOSET_TAGS)
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())
    # Labels are learned anew from the network of the joint stage, which is kept.
    (folder / "fold-1.pt").unlink()
    (tmp_path / "pool.npy").unlink()
    assert run("teach-folds", folder, *arguments).exit_code == 0
    again = load_network(folder / "fold-1.pt").state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(again[name], value)


def test_bad_input_is_refused(tmp_path: Path, data: Path) -> None:
    refused = run("collect", tmp_path / "none", "--to", tmp_path / "pool")
    assert refused.exit_code == 1
    assert "is not a folder" in refused.stderr
    (tmp_path / "empty").mkdir()
    refused = run("collect", tmp_path / "empty", "--to", tmp_path / "pool")
    assert refused.exit_code == 1
    assert "none of the recordings can be used" in refused.stderr
    refused = run("teach-music", tmp_path / "run", "--pool", tmp_path / "pool", "--weights", data, "--device", "cpu")
    assert refused.exit_code == 1
    assert "is not a pool of recordings" in refused.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_reported(tmp_path: Path, data: Path) -> None:
    refused = run("teach-music", tmp_path / "run", "--pool", tmp_path / "pool", "--weights", data)
    assert refused.exit_code == 1
    assert "PyTorch found no GPU" in refused.stderr
