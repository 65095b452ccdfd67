"""Parquet files with embeddings, and the recordings in them that are similar to another one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.harness.bundles import EMBEDDING_LENGTH, write_two_inputs
from tests.harness.paths import PROJECT
from tests.harness.recordings import wav_bytes
from wholetrack.cli.library import Library, LibraryError, LibraryWriter
from wholetrack.cli.whole_file import UnwritableError, whole_file
from wholetrack.contracts import Embeddings, TrackPrediction, WindowTimes
from wholetrack.inference.bundle import load_bundle
from wholetrack.pipeline import Pipeline

RATE = 22050


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_two_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def prediction(
    pipeline: Pipeline, models: Path, tune: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> TrackPrediction:
    song = tmp_path_factory.mktemp("song") / "song.wav"
    song.write_bytes(wav_bytes(tune[: 4 * RATE], RATE))
    return replace(pipeline.predict(song, max_duration_s=60), card=load_bundle(models / "twin/1").card)


def with_embedding(prediction: TrackPrediction, vector: NDArray[np.float32] | None) -> TrackPrediction:
    times = WindowTimes(np.zeros(1), np.zeros(1, dtype=np.bool_))
    return replace(prediction, embedding=Embeddings(length=EMBEDDING_LENGTH, track=vector, windows=None, times=times))


def test_a_library_returns_what_was_written(tmp_path: Path, prediction: TrackPrediction) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1500, EMBEDDING_LENGTH)).astype(np.float32)
    path = tmp_path / "library.parquet"
    with whole_file(path) as file, LibraryWriter(file, prediction.card) as writer:
        for i, vector in enumerate(vectors):
            writer.add(Path(f"{i}.mp3"), with_embedding(prediction, vector if i % 3 else None))
    table = pq.read_table(path)
    assert table.num_rows == 1500
    assert table.column("genre")[0].as_py() == prediction.summed_score.genre
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), EMBEDDING_LENGTH)
    library = Library.read(path)
    kept = [i for i in range(1500) if i % 3]
    assert library.files == [f"{i}.mp3" for i in kept]
    assert library.model == "twin@1"
    assert np.array_equal(library.embeddings, vectors[kept])
    nearest = library.nearest(vectors[4], limit=3)
    assert nearest[0][0] == "4.mp3"
    assert nearest[0][2] == pytest.approx(1.0)
    assert len(nearest) == 3
    with pytest.raises(
        LibraryError, match="have 8 numbers, and the model returns 5: write the library again with twin@1"
    ):
        library.nearest(np.ones(5, dtype=np.float32), limit=1)


def test_a_library_may_be_a_folder_of_files(tmp_path: Path, prediction: TrackPrediction) -> None:
    for i, name in enumerate(("part-000000", "part-000001")):
        vector = np.full(EMBEDDING_LENGTH, i + 1, dtype=np.float32)
        with whole_file(tmp_path / f"{name}.parquet") as file, LibraryWriter(file, prediction.card) as writer:
            writer.add(Path(f"{i}.mp3"), with_embedding(prediction, vector))
    assert sorted(Library.read(tmp_path).files) == ["0.mp3", "1.mp3"]


def test_an_interrupted_library_leaves_the_older_one(tmp_path: Path, prediction: TrackPrediction) -> None:
    path = tmp_path / "library.parquet"
    path.write_text("older")

    def write() -> None:
        with whole_file(path) as file, LibraryWriter(file, prediction.card) as writer:
            writer.add(Path("a.mp3"), prediction)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [file.name for file in tmp_path.iterdir()] == ["library.parquet"]
    assert path.read_text() == "older"


def test_files_that_are_no_library_are_named(tmp_path: Path, prediction: TrackPrediction) -> None:
    path = tmp_path / "library.parquet"
    with pytest.raises(LibraryError, match="cannot read .*library.parquet"):
        Library.read(path)
    path.write_text("not parquet")
    with pytest.raises(LibraryError, match="is not a Parquet file: write it with wholetrack predict --format parquet"):
        Library.read(path)
    pq.write_table(pa.table({"file": ["a"], "genre": ["rock"]}), path)
    with pytest.raises(LibraryError, match="has no column model and no version and no embedding: write it"):
        Library.read(path)
    with whole_file(path) as file, LibraryWriter(file, prediction.card) as writer:
        writer.add(Path("a.mp3"), prediction)
    with pytest.raises(LibraryError, match="has no embeddings: write it with a model that yields an embedding"):
        Library.read(path)
    vector = np.ones(EMBEDDING_LENGTH, dtype=np.float32)
    newer = replace(prediction, card=prediction.card.model_copy(update={"version": "2"}))
    with whole_file(path) as file, LibraryWriter(file, prediction.card) as writer:
        for each in (prediction, newer):
            writer.add(Path("a.mp3"), with_embedding(each, vector))
    with pytest.raises(LibraryError, match="has embeddings of several models: twin@1, twin@2"):
        Library.read(path)


def wholetrack(models: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = (
        "from pathlib import Path; from wholetrack import startup; from wholetrack.cli.app import main; "
        f"startup.BUILT_IN_MODELS = Path({str(models)!r}); main()"
    )
    environment = {"WHOLETRACK_DEVICE": "cpu", "WHOLETRACK_DEFAULT_MODEL": "twin", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=PROJECT, check=False)


def test_the_command_line_finds_the_recording_itself(models: Path, tune: NDArray[np.float32], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 4 * RATE).astype(np.float32)
    for name, samples in (("tune", tune[: 4 * RATE]), ("noise", noise), ("silence", np.zeros_like(noise))):
        (tmp_path / f"{name}.wav").write_bytes(wav_bytes(samples, RATE))
    library = tmp_path / "library.parquet"
    written = wholetrack(models, "predict", tmp_path, "--format", "parquet", "--output", library)
    assert (written.returncode, written.stdout) == (0, ""), written.stderr
    assert pq.read_table(library).num_rows == 3
    found = wholetrack(models, "similar", tmp_path / "tune.wav", library, "--limit", "2")
    assert found.returncode == 0, found.stderr
    header, first, second = found.stdout.splitlines()
    assert header.split() == ["file", "genre", "similarity"]
    assert first.split()[0].endswith("tune.wav")
    assert first.split()[2] == "1.0000"
    assert second.split()[0].endswith("noise.wav")
    silent = wholetrack(models, "similar", tmp_path / "silence.wav", library)
    assert (silent.returncode, silent.stdout) == (1, "")
    assert "silence.wav is silent, so that it has no embedding" in silent.stderr


def test_the_format_and_the_file_belong_together(models: Path, tmp_path: Path) -> None:
    for options in (("--format", "parquet"), ("--format", "rows-parquet"), ("--output", tmp_path / "library.parquet")):
        ended = wholetrack(models, "predict", tmp_path, *options)
        assert ended.returncode == 1
        assert ended.stderr == (
            "wholetrack: --format parquet or rows-parquet and --output FILE belong together: give both or neither\n"
        )


def test_windows_and_sections_can_be_written_as_parquet(
    models: Path, tune: NDArray[np.float32], tmp_path: Path
) -> None:
    """The rows are those of the other tables."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.wav").write_bytes(wav_bytes(tune[: 4 * RATE], RATE))
    path = tmp_path / "rows.parquet"
    written = wholetrack(models, "predict", tmp_path, "--format", "rows-parquet", "--output", path)
    assert (written.returncode, written.stdout) == (0, ""), written.stderr
    printed = wholetrack(models, "predict", tmp_path, "--format", "rows-jsonl")
    expected = [json.loads(line) for line in printed.stdout.splitlines()]
    table = pq.read_table(path)
    assert table.schema.metadata[b"model"] == b"twin"
    for row, other in zip(table.to_pylist(), expected, strict=True):
        assert {name: value for name, value in row.items() if value is not None} == pytest.approx(
            {name: value for name, value in other.items() if value is not None}, abs=1e-6
        )


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        with whole_file(path) as file:
            file.write(b"x")

    with pytest.raises(UnwritableError, match="cannot write .*missing/rows.parquet: No such file or directory"):
        write(tmp_path / "missing" / "rows.parquet")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnwritableError, match="cannot write .*folder: Is a directory"):
        write(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
