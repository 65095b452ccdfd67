"""Catalogues in an object store and in folders, from the list of files to the tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from tests.harness.catalogues import names, recording, rows
from tests.harness.object_store import ObjectStore
from wholetrack.catalogue import listing
from wholetrack.catalogue import run as catalogue_run
from wholetrack.catalogue.errors import CatalogueError
from wholetrack.catalogue.listed_file import ListedFile
from wholetrack.catalogue.run import run_catalogue
from wholetrack.catalogue.store import Store
from wholetrack.catalogue.workplace import CatalogueOptions, open_workplace
from wholetrack.contracts import Detail
from wholetrack.settings import Settings


def run(options: CatalogueOptions, settings: Settings, *, restart: bool = False) -> dict[str, Any]:
    """Run a catalogue in this process, and return its summary."""
    ended: list[dict[str, Any]] = []
    run_catalogue(options, settings, restart=restart, cluster=None, on_end=lambda run: ended.append(run.summary()))
    (summary,) = ended
    return summary


ODD_NAMES = (
    "plain.wav",
    "sub/folder/deep.WAV",
    "sub/no suffix of a recording.txt",
    "two//slashes.wav",
    "Früh & spät #1 100%41+?.wav",
    "[brackets]*.wav",
    "a::b.wav",
    "日本語.wav",
    " .wav",
    "'quotes\".wav",
)


def test_every_recording_in_a_bucket_is_predicted_once(
    object_store: ObjectStore, bucket: str, settings: Settings
) -> None:
    client = object_store.client()
    for i, name in enumerate(ODD_NAMES):
        client.pipe_file(f"{bucket}/music/{name}", recording(i))
    client.pipe_file(f"{bucket}/music/copy.wav", recording(0))
    client.pipe_file(f"{bucket}/music/empty.wav", b"")
    client.pipe_file(f"{bucket}/music/bad.mp3", b"not a recording" * 100)
    client.pipe_file(f"{bucket}/music 2/another-folder.wav", recording(0))
    options = CatalogueOptions(f"s3://{bucket}/music", f"s3://{bucket}/results", top_k=2, partition_files=4)
    found = run(options, settings)
    expected = {f"s3://{bucket}/music/{name}" for name in ODD_NAMES if not name.endswith("txt")}
    copies = {f"s3://{bucket}/music/copy.wav"}
    failed = {f"s3://{bucket}/music/{name}" for name in ("empty.wav", "bad.mp3")}
    assert names(client, f"{bucket}/results") == dict.fromkeys(expected | copies | failed, 1)
    failures = rows(client, f"{bucket}/results/failures")
    assert {row["file"]: row["code"] for row in failures} == {
        f"s3://{bucket}/music/empty.wav": "empty_audio",
        f"s3://{bucket}/music/bad.mp3": "unsupported_media",
    }
    assert all(row["detail"].endswith(".") for row in failures)
    assert (found["finished"], found["files"], found["predicted"], found["failed"]) == (True, 12, 10, 2)
    predictions = {row["file"]: row for row in rows(client, f"{bucket}/results/predictions")}
    original, copy = (predictions[f"s3://{bucket}/music/{name}"] for name in ("plain.wav", "copy.wav"))
    assert original["sha256"] == copy["sha256"] == hashlib.sha256(recording(0)).hexdigest()
    assert original["etag"] == copy["etag"] == hashlib.md5(recording(0)).hexdigest()
    assert original["size_bytes"] == len(recording(0))
    assert original["modified"] is not None
    assert list(settings.temp_dir.iterdir()) == []


def test_the_rows_say_what_the_pipeline_returns(settings: Settings, tmp_path: Path) -> None:
    source = tmp_path / "music"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.wav").write_bytes(recording(i, seconds=8))
    (source / "silent.wav").write_bytes(recording(0).replace(recording(0)[58:], bytes(len(recording(0)) - 58)))
    options = CatalogueOptions(str(source), str(tmp_path / "results"), hop_s=0.5, taxonomy="coarse", top_k=2)
    run(options, settings)
    table = pq.read_table(tmp_path / "results/predictions")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    by_file = {Path(row["file"]).name: row for row in table.to_pylist()}
    assert len(by_file) == table.num_rows == 4
    with open_workplace(options, settings) as workplace:
        for name, row in by_file.items():
            found = workplace.pipeline.predict(
                source / name, hop_s=0.5, taxonomy="coarse", embedding=Detail.TRACK, max_duration_s=60
            )
            assert (row["model"], row["version"]) == ("twin", "1")
            assert (row["genre"], row["voted_genre"]) == (found.summed_score.genre, found.majority_vote.genre)
            assert row["share"] == pytest.approx(found.summed_score.share, abs=1e-5)
            assert row["voted_share"] == pytest.approx(found.majority_vote.share, abs=1e-5)
            assert row["confidence"] == pytest.approx(found.confidence, abs=1e-5)
            assert row["in_domain"] == found.in_domain
            assert row["agreement"] == (row["genre"] == row["voted_genre"])
            assert [(each["genre"], each["share"]) for each in row["summed_top_k"]] == [
                (each.genre, pytest.approx(each.share, abs=1e-5)) for each in found.summed_score.ranked[:2]
            ]
            assert [(each["genre"], each["windows"]) for each in row["voted_top_k"]] == [
                (each.genre, each.windows) for each in found.majority_vote.ranked[:2]
            ]
            assert [(each["start_s"], each["end_s"], each["genre"]) for each in row["sections"]] == [
                (each.start_s, each.end_s, each.genre) for each in found.sections
            ]
            assert [each["code"] for each in row["warnings"]] == [str(each.code) for each in found.warnings]
            assert (row["windows"], row["hop_s"], row["taxonomy"]) == (len(found.windows.start_s), 0.5, "coarse")
            assert row["duration_s"] == pytest.approx(found.duration_s)
            assert (row["codec"], row["container"]) == (found.stream.codec, found.stream.container)
            assert found.tags is not None
            assert found.embedding is not None
            if found.tags.track is None or found.embedding.track is None:
                assert name == "silent.wav"
                assert row["tags"] is row["embedding"] is row["genre"] is None
                assert row["silent_windows"] == row["windows"]
                continue
            tags = {tag.name: value for tag, value in zip(found.tags.tags, found.tags.track.tolist(), strict=True)}
            assert {each["name"]: each["probability"] for each in row["tags"]} == pytest.approx(tags, abs=1e-5)
            assert [each["probability"] for each in row["tags"]] == sorted(tags.values(), reverse=True)
            assert row["embedding"] == pytest.approx(found.embedding.track.tolist(), abs=1e-5)


def test_local_names_may_have_any_bytes_and_links_and_pipes_do_no_harm(settings: Settings, tmp_path: Path) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/mus\xefc::zip"))
    (source / "sub").mkdir(parents=True)
    odd = os.fsdecode(os.fsencode(source) + b"/sub/caf\xe9.wav")
    Path(odd).write_bytes(recording(1))
    (source / "new\nline.wav").write_bytes(recording(2))
    (source / "link.wav").symlink_to(source / "new\nline.wav")
    (source / "broken.wav").symlink_to(source / "missing")
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe.wav")
    (source / "folder.wav").mkdir()
    found = run(CatalogueOptions(str(source), str(tmp_path / "results")), settings)
    assert found["files"] == found["predicted"] == 3
    assert set(names(LocalFileSystem(), str(tmp_path / "results"))) == {
        f"{tmp_path}/mus\\xefc::zip/sub/caf\\xe9.wav",
        f"{tmp_path}/mus\\xefc::zip/new\nline.wav",
        f"{tmp_path}/mus\\xefc::zip/link.wav",
    }
    assert not (tmp_path / "results/_unfinished").exists()


def test_files_that_vanish_or_exceed_a_limit_are_failures(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "music"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.wav").write_bytes(recording(i, seconds=4 + i))
    limited = settings.model_copy(update={"max_upload_bytes": len(recording(0, seconds=6.5)), "max_duration_s": 5.5})
    options = CatalogueOptions(str(source), str(tmp_path / "results"))
    list_recordings = listing.list_recordings

    def list_and_lose_one(store: Store) -> Iterator[ListedFile]:
        yield from list_recordings(store)
        (source / "0.wav").unlink()

    monkeypatch.setattr(catalogue_run, "list_recordings", list_and_lose_one)
    run(options, limited)
    failures = rows(LocalFileSystem(), str(tmp_path / "results/failures"))
    assert {Path(row["file"]).name: row["code"] for row in failures} == {
        "0.wav": "unreadable_file",
        "2.wav": "audio_too_long",
        "3.wav": "upload_too_large",
    }
    assert failures[0]["detail"] == "The file cannot be read: No such file or directory."
    assert len(rows(LocalFileSystem(), str(tmp_path / "results/predictions"))) == 1


def test_a_finished_run_predicts_nothing_again_and_lists_nothing_new(settings: Settings, tmp_path: Path) -> None:
    source = tmp_path / "music"
    source.mkdir()
    (source / "0.wav").write_bytes(recording(0))
    (source / "1.wav").write_bytes(b"")
    options = CatalogueOptions(str(source), str(tmp_path / "results"))
    assert run(options, settings)["done_by_earlier_runs"] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.parquet")}
    (source / "2.wav").write_bytes(recording(2))
    again = run(options, settings)
    assert (again["done_by_earlier_runs"], again["predicted"], again["failed"]) == (2, 1, 1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.parquet")} == before
    restarted = run(options, settings, restart=True)
    assert (restarted["done_by_earlier_runs"], restarted["predicted"], restarted["failed"]) == (0, 2, 1)


def test_a_run_is_not_continued_with_something_else(settings: Settings, tmp_path: Path) -> None:
    source, target = tmp_path / "music", tmp_path / "results"
    source.mkdir()
    (source / "0.wav").write_bytes(recording(0))
    run(CatalogueOptions(str(source), str(target)), settings)
    with pytest.raises(CatalogueError, match="results of another run: top_k is 3 there and 5 here. .*--restart"):
        run(CatalogueOptions(str(source), str(target), top_k=5), settings)
    shorter = settings.model_copy(update={"max_duration_s": 5.0})
    with pytest.raises(CatalogueError, match="max_duration_s is 10800.0 there and 5.0 here"):
        run(CatalogueOptions(str(source), str(target)), shorter)
    (target / "manifest.parquet").unlink()
    with pytest.raises(CatalogueError, match="has predictions, but no manifest"):
        run(CatalogueOptions(str(source), str(target)), settings)
    (target / "manifest.parquet").write_text("something else")
    with pytest.raises(CatalogueError, match="is not a manifest that this version of wholetrack can continue"):
        run(CatalogueOptions(str(source), str(target)), settings)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"source": "missing"}, "/missing does not exist"),
        ({"source": "results"}, "contains no recordings"),
        ({"source": "unknown://bucket"}, "unknown://bucket cannot be opened: Protocol not known: unknown"),
        ({"model": "nobody"}, "there is no model nobody; found: twin"),
        ({"hop_s": 50.0}, "hop"),
        ({"taxonomy": "nothing"}, "taxonomy: twin has only coarse"),
    ],
    ids=str,
)
def test_a_run_that_cannot_begin_says_why(
    change: dict[str, object], sentence: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("music").mkdir()
    Path("results").mkdir()
    Path("music/0.wav").write_bytes(recording(0))
    arguments = {"source": "music", "target": "results"} | change
    with pytest.raises(CatalogueError, match=sentence):
        run(CatalogueOptions(**arguments), settings)  # type: ignore[arg-type]
    assert list(Path("results").iterdir()) == []


def test_the_summary_can_be_read_by_programs(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "0.wav").write_bytes(recording(0))
    found = json.loads(json.dumps(run(CatalogueOptions(str(tmp_path), f"memory://{tmp_path.name}"), settings)))
    assert found["source"] == f"file://{tmp_path}"
    assert found["target"].startswith("memory://")
    assert (found["model"], found["version"], found["remaining"]) == ("twin", "1", 0)
    assert found["seconds"] > 0
