"""Stores that ask for fewer requests, refuse them, or are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem
from typer.testing import CliRunner, Result

from tests.harness.catalogues import names, recording
from tests.harness.object_store import DENIED, SLOW_DOWN, ObjectStore, Refusal
from wholetrack.catalogue.errors import CatalogueError, StoreError
from wholetrack.catalogue.listing import list_recordings
from wholetrack.catalogue.store import Store, UnreadableFileError
from wholetrack.cli import catalogue as cli
from wholetrack.cli.commands import app
from wholetrack.settings import Settings

N_FILES = 6


@pytest.fixture
def music(object_store: ObjectStore, bucket: str) -> str:
    client = object_store.client()
    for i in range(N_FILES):
        client.pipe_file(f"{bucket}/music/{i}.wav", recording(i))
    return f"s3://{bucket}/music"


@pytest.fixture(autouse=True)
def quick_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be few attempts for each request, and short pauses between them."""
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(S3FileSystem, "retries", 2)


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in this process."""
    monkeypatch.setattr(cli, "load_command_settings", lambda: settings)
    return lambda *arguments: CliRunner().invoke(app, ["catalogue", *arguments, "--partition-files", "2"])


def test_a_store_that_throttles_is_asked_again(
    run: Callable[..., Result], music: str, object_store: ObjectStore, bucket: str
) -> None:
    refused: set[tuple[str, str]] = set()

    def refuse_the_first_time(method: str, path: str) -> Refusal | None:
        """Refuse a list, a file, the manifest and two tables, once each."""
        chosen = ("/", "/0.wav", "manifest.parquet", "predictions/part-000000.parquet", "failures/part-000001.parquet")
        if (method, path) in refused or not path.endswith(chosen):
            return None
        refused.add((method, path))
        return SLOW_DOWN

    object_store.refusal = refuse_the_first_time
    done = run(music, "--out", f"s3://{bucket}/results")
    assert done.exit_code == 0, done.output
    assert {(method, path.rpartition("/")[2]) for method, path in refused} >= {
        ("GET", "0.wav"),
        ("PUT", "manifest.parquet"),
        ("PUT", "part-000000.parquet"),
        ("PUT", "part-000001.parquet"),
    }
    assert names(object_store.client(), f"{bucket}/results") == {f"{music}/{i}.wav": 1 for i in range(N_FILES)}


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_store_that_refuses_ends_the_run_which_can_be_continued(
    method: str, run: Callable[..., Result], music: str, object_store: ObjectStore, bucket: str
) -> None:
    def refuse(used: str, path: str) -> Refusal | None:
        refused = "results/predictions/part-000001" if method == "PUT" else "music/2.wav"
        return SLOW_DOWN if used == method and refused in path else None

    object_store.refusal = refuse
    done = run(music, "--out", f"s3://{bucket}/results")
    assert done.exit_code == 75, done.output
    found = json.loads(done.stdout)
    assert (found["finished"], found["failed"]) == (False, 0)
    assert found["predicted"] in {0, 2, 4}
    assert "Please reduce your request rate" in done.stderr
    assert f"{found['predicted']} of 6 files are done; run the same command again to continue" in done.stderr
    object_store.refusal = lambda _method, _path: None
    again = run(music, "--out", f"s3://{bucket}/results")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["done_by_earlier_runs"] == found["predicted"]
    assert names(object_store.client(), f"{bucket}/results") == {f"{music}/{i}.wav": 1 for i in range(N_FILES)}


def test_a_store_that_is_not_there_ends_the_run(
    run: Callable[..., Result], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    done = run(f"s3://{bucket}/elsewhere", "--out", str(tmp_path / "results"))
    assert done.exit_code == 75, done.output
    assert done.stderr.startswith(f"wholetrack: cannot list s3://{bucket}/elsewhere: ")
    assert done.stdout == ""


def test_options_of_the_stores_can_be_given(
    run: Callable[..., Result], music: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = [
        "--storage-option",
        f"endpoint_url={object_store.url}",
        "--storage-option",
        'client_kwargs={"verify": false}',
    ]
    done = run(music, "--out", str(tmp_path / "results"), *options)
    assert done.exit_code == 0, done.output
    done = run(music, "--out", str(tmp_path / "results"), "--storage-option", "nothing")
    assert done.exit_code == 1
    assert done.stderr == "wholetrack: --storage-option nothing is not KEY=VALUE\n"


def test_a_missing_bucket_and_missing_rights_are_mistakes(object_store: ObjectStore, bucket: str) -> None:
    with pytest.raises(CatalogueError, match="s3://there-is-none/music does not exist"):
        list(list_recordings(Store("s3://there-is-none/music", {})))
    object_store.refusal = lambda _method, _path: DENIED
    with pytest.raises(CatalogueError, match=f"s3://{bucket} cannot be listed: Access Denied"):
        list(list_recordings(Store(f"s3://{bucket}", {})))


def test_a_file_that_is_refused_is_told_from_a_store_that_refuses_everything(
    object_store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    object_store.client().pipe_file(f"{bucket}/a.wav", b"content")
    store = Store(f"s3://{bucket}", {})
    object_store.refusal = lambda _method, path: DENIED if path.endswith("a.wav") else None
    with (
        pytest.raises(UnreadableFileError, match="The file cannot be read: Access Denied."),
        store.local_copy(f"s3://{bucket}/a.wav", tmp_path),
    ):
        pass
    store.check()
    object_store.refusal = lambda _method, _path: DENIED
    with pytest.raises(StoreError, match=f"cannot list s3://{bucket}"):
        store.check()
    assert list(tmp_path.iterdir()) == []


def test_s3_is_asked_less_often_while_it_throttles_unless_the_variables_say_otherwise(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retries(options: dict[str, Any]) -> Any:
        return Store(f"s3://bucket/{len(options)}", options)._fs.config_kwargs.get("retries")

    del object_store
    assert retries({"anon": True}) is None
    for name in ("AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name)
    assert retries({})["mode"] == "adaptive"
    assert retries({"config_kwargs": {"retries": {"mode": "legacy"}}})["mode"] == "legacy"
