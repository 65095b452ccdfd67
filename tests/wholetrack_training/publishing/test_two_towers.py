"""wholetrack-crnn 2 is published as a bundle that the service runs, with calibrations, tags and a licence trail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.harness.recordings import wav_bytes
from wholetrack.inference.bundle import load_bundle, load_bundles
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

import torch

from tests.wholetrack_training.results.test_judging import made_up
from wholetrack.contracts import TagCalibrationSpec
from wholetrack.contracts.prediction import Detail
from wholetrack_training.errors import DataError, PublishingError
from wholetrack_training.export.two_towers import KNOWN_GENRE, KnownGenre, PublishedTwoTowers
from wholetrack_training.publishing import two_towers
from wholetrack_training.publishing.calibrated_facts import calibrated_facts
from wholetrack_training.publishing.judged_bundles import judged_bundles
from wholetrack_training.publishing.two_tower_facts import trained_on
from wholetrack_training.publishing.two_towers import TwoTowerFacts, is_published_from, publish_two_towers
from wholetrack_training.systems.checkpoints import load_network, new_network, save_network
from wholetrack_training.systems.tag_kinds import KINDS, published_tags
from wholetrack_training.systems.taxonomy import AUDIOSET, GENRES, GTZAN, UNVERIFIED

# The export takes 40 s of CPU time, which may be minutes on a busy machine.
pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

LABELS = (*dict.fromkeys(tag for tags in AUDIOSET.values() for tag in tags), "Music", "Speech", "Bicycle bell")
FACTS = TwoTowerFacts(
    name="two",
    version="1",
    trained_on=trained_on(part=0),
    bias={"folk": 0.5},
    known=KnownGenre(energy=0.5, music=0.25, constant=1.0),
    tag_calibration={"Jazz": TagCalibrationSpec(slope=1.5, intercept=0.5)},
    unverified=("house",),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "fold-0.pt"
    save_network(path, new_network(LABELS))
    return path


@pytest.fixture(scope="module")
def models(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published bundle. The export takes half a minute, so it is done once."""
    folder = tmp_path_factory.mktemp("models")
    publish_two_towers(checkpoint, FACTS, folder)
    return folder


def test_the_bundle_is_served(models: Path, tmp_path: Path) -> None:
    card = load_bundles(models)["two"].card
    assert card.labels == GENRES
    assert card.parents["techno"] == "electronic"
    assert list(card.taxonomies["gtzan"].genres) == list(GTZAN)
    assert card.metrics["export_max_difference"] < 1e-3
    song = tmp_path / "song.wav"
    time = np.arange(22050 * 5) / 22050
    song.write_bytes(wav_bytes((0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), 22050))
    pipeline = build_pipeline(Settings(models_dir=models, default_model="two", device="cpu"))
    try:
        found = pipeline.predict(song, taxonomy="gtzan", embedding=Detail.TRACK, max_duration_s=60)
    finally:
        pipeline.close()
    assert found.labels == GTZAN
    assert found.tags is not None
    assert found.tags.track is not None
    names = [tag.name for tag in found.tags.tags]
    assert set(UNVERIFIED) <= set(names)
    assert names[-1] == KNOWN_GENRE
    # House is AudioSet's label under another name, and a bell of a bicycle is no property of music.
    assert not {"House music", "Bicycle bell"} & set(names)
    assert found.embedding is not None
    assert found.embedding.track is not None
    assert np.linalg.norm(found.embedding.track) == pytest.approx(1.0, abs=1e-5)


def test_the_published_graph_computes_what_the_network_does(models: Path, checkpoint: Path) -> None:
    session = onnxruntime.InferenceSession(load_bundles(models)["two"].onnx, providers=["CPUExecutionProvider"])
    network = PublishedTwoTowers(load_network(checkpoint), FACTS.bias, FACTS.known, flattest=FACTS.flattest)
    for n_windows in (1, 5):
        rng = np.random.default_rng(n_windows)
        windows = {
            "spectrum": rng.random((n_windows, 39, 128), dtype=np.float32),
            "music": rng.random((n_windows, 288, 112), dtype=np.float32),
        }
        with torch.inference_mode():
            expected = network(*(torch.from_numpy(window) for window in windows.values()))
        found = session.run(["scores", "tags", "embedding"], windows)
        for output, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(output, reference.numpy(), atol=1e-4)


def test_the_card_names_what_the_network_started_from_and_what_taught_it(models: Path) -> None:
    text = (models / "two" / "1" / "CARD.md").read_text()
    for words in ("mn04_as", "arXiv:2211.04772", "MIT", "MSD_musicnn", "ISC", "msd_fcn"):
        assert words in text
    assert "jamendo" not in text.lower()


def test_a_bundle_is_exported_again_only_for_another_checkpoint(models: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = models / "two" / "1"
    card = load_bundle(folder).card
    assert not is_published_from(folder, checkpoint), "a calibrated bundle is not that of a judged fold"
    judged = tmp_path / "fold-0" / "1"
    judged.mkdir(parents=True)
    for file in folder.iterdir():
        (judged / file.name).write_bytes(file.read_bytes())
    plain = card.outputs.tags
    assert plain
    labels = tuple(tag.model_copy(update={"calibration": None}) for tag in plain.labels)
    outputs = card.outputs.model_copy(update={"tags": plain.model_copy(update={"labels": labels})})
    from wholetrack_training.files import write_json

    write_json(judged / "model.json", card.model_copy(update={"name": "fold-0", "outputs": outputs}).document())
    assert is_published_from(judged, checkpoint)
    other = tmp_path / "other.pt"
    save_network(other, new_network(LABELS))
    assert not is_published_from(judged, other)
    assert not is_published_from(tmp_path / "missing", checkpoint)


def test_the_bias_and_the_tag_of_known_genres_are_in_the_network() -> None:
    torch.manual_seed(1)
    network = new_network(LABELS).eval()
    windows = torch.rand(2, 39, 128), torch.rand(2, 288, 112)
    with torch.inference_mode():
        scores, tags, _ = network(*windows)
        biased, published, _ = PublishedTwoTowers(network, {"folk": 0.5}, KnownGenre(2.0, 3.0, 4.0, 5.0, 6.0))(*windows)
    expected = scores.clone()
    expected[:, GENRES.index("folk")] += 0.5
    torch.testing.assert_close(biased, expected)
    # The tag does without the bias.
    energy = torch.logsumexp(scores, dim=1)
    speech, music = tags[:, LABELS.index("Speech")], tags[:, LABELS.index("Music")]
    known = 2 * energy + 3 * (scores.amax(1) - energy) + 4 * speech + 5 * music + 6
    torch.testing.assert_close(published[:, -1], known)
    world = torch.stack([tags[:, LABELS.index(tag)] for tag in AUDIOSET["world"]]).amax(0)
    torch.testing.assert_close(published[:, -2], world)


def test_windows_of_no_known_genre_are_flatter() -> None:
    torch.manual_seed(1)
    network = new_network(LABELS).eval()
    windows = torch.rand(2, 39, 128), torch.rand(2, 288, 112)
    with torch.inference_mode():
        scores, *_ = network(*windows)
        for constant, factor in ((-50.0, 0.3), (0.0, 0.65), (50.0, 1.0)):
            known = KnownGenre(0.0, 0.0, 0.0, 0.0, constant)
            found, *_ = PublishedTwoTowers(network, {"folk": 0.5}, known, flattest=0.3)(*windows)
            expected = factor * scores
            expected[:, GENRES.index("folk")] += 0.5
            torch.testing.assert_close(found, expected)


def test_every_published_tag_has_a_kind_and_the_genres_need_only_known_tags() -> None:
    assert set(KINDS.values()) == {"genre", "mood", "instrument", "voice", "not_music", "other"}
    for tags in AUDIOSET.values():
        assert all(KINDS[tag] == "genre" for tag in tags)
    assert published_tags(("Music", "Techno", "Bicycle bell", "Piano")) == ("Music", "Piano")


def test_the_facts_come_from_the_record() -> None:
    judged = made_up()
    facts = calibrated_facts(judged, name="wholetrack-crnn", version="2", licence="Apache-2.0")
    assert set(facts.bias) == set(GENRES)
    assert facts.domain is not None
    assert facts.domain.tag == KNOWN_GENRE
    assert facts.metrics["windows"]["right"]["n"] == 30
    assert "Speech" in facts.unverified
    from dataclasses import replace

    with pytest.raises(PublishingError, match="does not belong to wholetrack-crnn 2"):
        calibrated_facts(replace(judged, labels=GTZAN, sets=judged.sets), name="x", version="1", licence="Apache-2.0")


def test_missing_networks_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"neither checkpoints nor bundles of the folds \[1, 2, 3, 0\]"):
        judged_bundles(tmp_path, None)
    monkeypatch.setattr(two_towers, "export_two_towers", lambda _: b"")
    torch.save({}, tmp_path / "fold-1.pt")
    with pytest.raises(DataError, match="does not hold the weights of wholetrack-crnn 2"):
        judged_bundles(tmp_path, None)
