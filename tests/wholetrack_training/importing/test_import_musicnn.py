"""musicnn: the weights of its package are the published ones, and the service gives the tags that its network gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wholetrack import startup
from wholetrack.contracts import Detail
from wholetrack.decoding.decoder import FfmpegDecoder
from wholetrack.decoding.ffmpeg import find_ffmpeg
from wholetrack.inference.bundle import load_bundle
from wholetrack.pipeline import Pipeline
from wholetrack.settings import Settings
from wholetrack.startup import build_pipeline

pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[train]'")

from wholetrack_training.cli import app
from wholetrack_training.importing.bundle import import_network
from wholetrack_training.importing.musicnn import (
    LICENCE,
    Variant,
    find_package,
    musicnn_draft,
    musicnn_network,
)
from wholetrack_training.importing.musicnn import read_weights as read_package
from wholetrack_training.systems.taggers.tagger import open_tagger
from wholetrack_training.systems.taggers.weights import read_weights

pytestmark = pytest.mark.torch

RECORDINGS = ("fantasma.mp3", "hungarian-dance-5.ogg", "lets-go-fishin.ogg")


def test_a_missing_package_is_reported_with_the_command_that_installs_it(tmp_path: Path) -> None:
    for arguments, complaint in (
        (["--package", str(tmp_path)], f"not in {tmp_path}: pip install --no-deps musicnn==0.1.0"),
        (["--variant", "fma"], "musicnn has no network fma; choose from msd, mtt"),
    ):
        done = CliRunner().invoke(app, ["import", "musicnn", *arguments, "--models", str(tmp_path / "models")])
        assert done.exit_code == 1
        assert complaint in done.stderr
    (tmp_path / "configuration.py").write_text("")
    done = CliRunner().invoke(app, ["import", "musicnn", "--package", str(tmp_path)])
    assert done.exit_code == 1
    assert "does not belong to a TensorFlow checkpoint" in done.stderr


@pytest.mark.data
@pytest.mark.musicnn_package
def test_the_checkpoint_of_the_package_has_the_published_weights(music: Path) -> None:
    found = read_package(find_package(None), Variant.MSD)
    published = read_weights(music / "pretrained" / "msd_musicnn.npz")
    assert found.labels == published.labels
    assert set(published.arrays) <= set(found.arrays)
    for name, array in published.arrays.items():
        assert array.dtype == found.arrays[name].dtype
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


@pytest.mark.musicnn_package
@pytest.mark.parametrize("variant", Variant)
def test_both_networks_of_the_package_are_imported(variant: Variant, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["import", "musicnn", "--variant", variant, "--models", str(tmp_path)])
    assert done.exit_code == 0, done.output
    card = load_bundle(tmp_path / f"musicnn-{variant}" / "0.1.0").card
    assert card.licence == "ISC"
    assert card.outputs.tags
    assert len(card.outputs.tags.labels) == 50
    assert card.outputs.embedding
    assert card.outputs.embedding.length == 200
    assert set(card.labels) == {tag.name for tag in card.outputs.tags.labels if tag.kind == "genre"}
    members = [label for labels in card.taxonomies["coarse"].genres.values() for label in labels]
    assert sorted(members) == sorted(card.labels)
    assert card.trained_on["imported"]["max_difference"] < 1e-4


@pytest.fixture(scope="module")
def served(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    models = tmp_path_factory.mktemp("models")
    weights = read_weights(music / "pretrained" / "msd_musicnn.npz")
    origin = {"source": "shared data", "file": "msd_musicnn.npz", "file_sha256": ""}
    draft = musicnn_draft(Variant.MSD, weights.labels)
    import_network(musicnn_network(weights), draft, licence=LICENCE, origin=origin, models=models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "BUILT_IN_MODELS", models)
        pipeline = build_pipeline(Settings(device="cpu", default_model="musicnn-msd"))
    yield pipeline
    pipeline.close()


@pytest.mark.long
@pytest.mark.data
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_service_gives_the_tags_of_the_network(served: Pipeline, music: Path, name: str) -> None:
    path, tagger = music / "audio" / "full" / name, open_tagger("msd_musicnn", music / "pretrained")
    found = served.predict(path, tags=Detail.WINDOWS, embedding=Detail.WINDOWS, max_duration_s=600)
    with (
        closing(FfmpegDecoder(find_ffmpeg())) as decoder,
        decoder.open(path, sample_rate=tagger.sample_rate, max_duration_s=600) as decoding,
    ):
        samples = np.concatenate(list(decoding.blocks()))
        decoding.summary()
    audible = ~found.windows.silent
    starts = found.windows.start_s[audible]
    expected = tagger.outputs(samples, (starts + tagger.window_s / 2).tolist())
    logits = expected.logits.astype(np.float64)
    tags = 1 / (1 + np.exp(-logits))

    assert found.tags
    assert found.tags.windows is not None
    assert found.tags.track is not None
    assert tuple(tag.name for tag in found.tags.tags) == tagger.labels
    np.testing.assert_allclose(found.tags.windows, tags, atol=1e-3)
    np.testing.assert_allclose(found.tags.track, tags.mean(axis=0), atol=1e-3)
    assert found.embedding
    assert found.embedding.windows is not None
    vectors = expected.embedding / np.linalg.norm(expected.embedding, axis=1, keepdims=True)
    np.testing.assert_allclose(found.embedding.windows, vectors, atol=1e-3)
    genres = logits[:, [tagger.labels.index(label) for label in found.labels]]
    powers = np.exp(genres - genres.max(axis=1, keepdims=True))
    scores = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.windows.probabilities[audible], scores, atol=1e-3)
