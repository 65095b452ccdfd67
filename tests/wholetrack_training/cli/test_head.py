"""``wholetrack-train head``: from a folder of music to a bundle that is served beside its base, and its errors."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.harness.app_client import app_client
from tests.harness.bundles import EMBEDDING_LENGTH, TAGS, write_two_inputs
from tests.harness.recordings import wav_bytes

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack import startup
from wholetrack.api.admission import Admission
from wholetrack.api.app import create_app
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline
from wholetrack_training.cli import app
from wholetrack_training.errors import DataError
from wholetrack_training.results.head_records import heads_section, read_head_records

pytestmark = pytest.mark.torch

RATE = 22050
GENRES = ("bass", "hiss", "whistle")


def sound(genre: str, seed: int) -> bytes:
    """Four seconds of noise, of a low tone or of a high one, all a little different."""
    rng = np.random.default_rng([seed, *genre.encode()])
    time = np.arange(4 * RATE) / RATE
    noise = rng.normal(0, 0.1, len(time))
    if genre == "hiss":
        samples = noise
    else:
        pitch = rng.uniform(60, 120) if genre == "bass" else rng.uniform(2000, 4000)
        samples = 0.4 * np.sin(2 * np.pi * pitch * time) + 0.03 * noise
    return wav_bytes(samples.astype(np.float32), RATE)


def write_music(folder: Path, counts: dict[str, int]) -> Path:
    for genre, n in counts.items():
        (folder / genre).mkdir(parents=True)
        for i in range(n):
            (folder / genre / f"{i}.wav").write_bytes(sound(genre, i))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with a small network that yields an embedding."""
    models = tmp_path_factory.mktemp("models")
    write_two_inputs(models)
    return models


@pytest.fixture(scope="module")
def original(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten recordings of each of three genres, and their embeddings."""
    folder = tmp_path_factory.mktemp("original")
    music = write_music(folder / "music", dict.fromkeys(GENRES, 10))
    assert run(music, base, "--evaluate-only").exit_code == 0
    return folder


@pytest.fixture
def music(original: Path, tmp_path: Path) -> Path:
    """Ten recordings of each of three genres."""
    return Path(shutil.copytree(original, tmp_path / "data")) / "music"


@pytest.fixture
def models(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "models"))


def run(music: Path, models: Path, *options: str, name: str = "my-genres", base: str = "twin") -> Result:
    arguments = ["head", "--data", str(music), "--name", name, "--models", str(models), "--base", base]
    return CliRunner().invoke(app, [*arguments, *options])


def complaint(result: Result) -> str:
    """Return the sentence with which a command failed."""
    assert result.exit_code == 1, result.output
    (sentence,) = (line for line in result.stderr.splitlines() if line.startswith("wholetrack-train: "))
    return sentence


def test_from_a_folder_of_music_to_predictions(music: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (music / "bass" / "broken.mp3").write_bytes(b"not a recording")
    (music / "bass" / "silence.wav").write_bytes(wav_bytes(np.zeros(RATE, dtype=np.float32), RATE))
    done = run(music, models)
    assert done.exit_code == 0, done.output
    folder = models / "my-genres" / "1"
    assert done.stdout.splitlines()[-1] == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["CARD.md", "head.npz", "model.json", "report.json"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000

    card, report = (json.loads((folder / name).read_text()) for name in ("model.json", "report.json"))
    assert card["labels"] == list(GENRES)
    assert card["head_of"]["name"] == "twin"
    assert card["head"]["inputs"] == ["embedding", "tags"]
    assert card["summary"] == "3 genres, from the embedding and the tags of twin 1"
    with np.load(folder / "head.npz") as head:
        assert head["weights"].shape == (3, EMBEDDING_LENGTH + len(TAGS))
    assert card["trained_on"]["recordings"] == dict.fromkeys(GENRES, 10)
    assert report["recordings"] == 30
    assert np.sum(report["confusion"]) == 30
    assert report["protocol"] == "10 folds, without regard to artists"
    assert report["mean_recall"] > 0.9
    low, high = report["mean_recall_interval"]
    assert low <= report["mean_recall"] <= high
    assert report["recall"]["hiss"]["n"] == 10
    text = (folder / "CARD.md").read_text()
    assert text.strip() in done.stdout
    assert "- bass/broken.mp3: " in text
    assert "- bass/silence.wav: it is silent" in text

    monkeypatch.setattr(startup, "BUILT_IN_MODELS", models)
    settings = Settings(device="cpu", default_model="twin")
    pipeline = build_pipeline(settings)
    with app_client(create_app(pipeline, settings, Admission(4))) as client:
        engine = pipeline.model("twin").engine
        for i, genre in enumerate(GENRES):
            before = _n_windows(engine)
            content = sound(genre, 100 + i)
            own, of_base = (
                client.post("/v1/predict", content=content, model=name, embedding="track").json()
                for name in ("my-genres", "twin")
            )
            assert own["prediction"]["summed_score"]["genre"] == genre
            np.testing.assert_allclose(own["embedding"]["track"], of_base["embedding"]["track"], atol=1e-6)
            # Both requests went through the only network that is open, once for each window.
            assert _n_windows(engine) - before == 2 * own["windows"]["count"]
        assert pipeline.model("my-genres").engine is engine


def _n_windows(engine: Any) -> int:
    return sum(size * n for size, n in engine.counts().devices["cpu"].batches.items())


def test_it_can_be_repeated_and_reads_stored_embeddings(
    music: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(music, models, "--evaluate-only")
    assert first.exit_code == 0, first.output
    assert not (models / "my-genres").exists()
    monkeypatch.setattr("wholetrack.pipeline.Pipeline.predict", None)
    for _ in range(2):
        again = run(music, models)
        assert again.exit_code == 0, again.output
        assert again.stdout.startswith(first.stdout.strip())


def test_recordings_of_an_artist_are_held_out_together(music: Path, models: Path, tmp_path: Path) -> None:
    table = tmp_path / "artists.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("track", "artist"))
        rows.writerows((f"{genre}/{i}.wav", f"{genre} {i // 3}") for genre in GENRES for i in range(10))
    done = run(music, models, "--artists", str(table), "--folds", "4", "--evaluate-only")
    assert "(4 folds, recordings of one artist together)" in done.stdout
    assert "The genre bass has 4 artists, so its figures are uncertain." in done.stdout
    done = run(music, models, "--artists", str(table), "--leave-one-out", "--evaluate-only")
    assert "(leaving one artist out)" in done.stdout
    # Found without being named.
    shutil.copy(table, music / "tracks.csv")
    assert "(leaving one artist out)" in run(music, models, "--leave-one-out", "--evaluate-only").stdout
    (music / "tracks.csv").write_text("track,artist\nbass/77.wav,x\n")
    assert "lists 1 tracks that do not exist, such as bass/77.wav" in complaint(run(music, models))
    assert "does not exist; give a table" in complaint(run(music, models, "--artists", str(tmp_path / "no.csv")))


def test_copies_of_a_recording_are_held_out_together(music: Path, models: Path) -> None:
    shutil.copy(music / "hiss/0.wav", music / "whistle/copy.wav")
    done = run(music, models, "--leave-one-out", "--evaluate-only")
    assert "whistle/copy.wav has exactly the same sound as hiss/0.wav, which is in another genre." in done.stdout


def test_two_genres_are_refused(music: Path, models: Path) -> None:
    shutil.rmtree(music / "hiss")
    assert complaint(run(music, models)).endswith(
        f"a head needs at least 3 genres, and {music} has 2 of their folders (bass and whistle): a head of two genres "
        "assigns every recording to one of them, even if it is neither. Add a folder of other music"
    )
    assert not (models / "my-genres").exists()


def test_a_base_without_tags_gives_a_head_of_the_embedding(music: Path, tmp_path: Path) -> None:
    write_two_inputs(tmp_path / "untagged", tags=False)
    done = run(music, tmp_path / "untagged")
    assert done.exit_code == 0, done.output
    assert "3 genres, from the embedding of twin 1." in done.stdout
    card = json.loads((tmp_path / "untagged/my-genres/1/model.json").read_text())
    assert card["summary"] == "3 genres, from the embedding of twin 1"
    assert card["head"]["inputs"] == ["embedding"]
    with np.load(tmp_path / "untagged/my-genres/1/head.npz") as head:
        assert head["weights"].shape == (3, EMBEDDING_LENGTH)


def test_the_record_of_a_head_is_a_section_of_the_results(music: Path, models: Path, tmp_path: Path) -> None:
    record = tmp_path / "heads" / "ten.json"
    done = run(music, models, "--folds", "5", "--evaluate-only", "--record", str(record))
    assert done.exit_code == 0, done.output
    assert not (models / "my-genres").exists()
    found = json.loads(record.read_text())
    assert found["command"] == "wholetrack-train head --data music --name my-genres --folds 5 --evaluate-only"
    assert found["base"]["sha256"] == json.loads((models / "twin/1/model.json").read_text())["sha256"]
    assert found["inputs"] == {"embedding": EMBEDDING_LENGTH, "tags": len(TAGS)}
    text = "\n".join(heads_section(read_head_records(record.parent)))
    assert f"{found['command']}  # {found['date']}" in text
    assert "|  | 5 folds, without regard to artists |" in text
    assert "| inputs | embedding (8), tags (3) |" in text
    assert "| recordings | 30, 3 groups |" in text
    low, high = found["mean_recall_interval"]
    assert f"| mean recall | {found['mean_recall']:.3f} [{low:.3f}, {high:.3f}] |" in text
    hiss = found["recall"]["hiss"]
    assert f"| hiss | {hiss['value']:.3f} [{hiss['interval'][0]:.3f}, {hiss['interval'][1]:.3f}], n = 10 |" in text
    assert heads_section({}) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "is not a record of a head"), ("[]", "is not a record of a head"), ('{"date": 1}', "it has no accuracy, ")],
)
def test_damaged_records_of_heads(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=expected):
        read_head_records(tmp_path)


def test_too_few_genres_or_recordings(music: Path, models: Path, tmp_path: Path) -> None:
    one_each = write_music(tmp_path / "one-each", dict.fromkeys(GENRES, 1))
    assert (
        "the genre bass has only 1 usable recording, and a head needs at least 3 to be fitted and judged (10 or more "
        f"give useful figures): add some to {one_each / 'bass'}, or remove that folder"
    ) in complaint(run(one_each, models))
    shutil.rmtree(music / "bass")
    (music / "bass").mkdir()
    (music / "bass/text.wav").write_text("no music")
    assert "the genre bass has no usable recording, " in complaint(run(music, models))
    for genre in ("bass", "hiss"):
        shutil.rmtree(music / genre)
    assert "has 1 of their folders (whistle)" in complaint(run(music, models))
    assert "is not a folder; give one with a folder" in complaint(run(tmp_path / "missing", models))


def test_names_and_bases_that_are_not_possible(music: Path, models: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(models, tmp_path / "other"))
    shutil.rmtree(other / "twin")
    write_two_inputs(other, change=lambda card: card["outputs"].pop("embedding"))
    for result, expected in (
        (run(music, models, name="wholetrack-crnn"), "wholetrack-crnn is the name of a built-in model; choose another"),
        (run(music, models, name="twin"), "holds a model with a network, not a head; choose another name"),
        (run(music, models, name="My genres"), "--name My genres is not possible: use lower-case letters, digits,"),
        (run(music, models, "--version", "new"), "--version new is not possible: use 1 or 1.2"),
        (run(music, models, base="triplet"), "there is no model triplet with a network, neither among the built-in "),
        (run(music, models, base="twin@2"), "choose one with --base: twin"),
        (run(music, models, base="guimaraes-cnn"), "guimaraes-cnn 1 yields no embedding, which a head needs"),
        (run(music, tmp_path / "none", base="guimaraes-cnn"), "choose a model that does with --base: wholetrack-crnn"),
        (run(music, other), "twin 1 yields no embedding, which a head needs; choose a model that does with --base: "),
    ):
        assert expected in complaint(result)
