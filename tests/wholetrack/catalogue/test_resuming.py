"""Runs that are killed or interrupted at any moment, and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from tests.harness.catalogues import command, names, recording
from tests.harness.object_store import ObjectStore
from tests.harness.paths import PROJECT
from tests.harness.waiting import until
from wholetrack.catalogue.listed_file import ListedFile
from wholetrack.catalogue.local import PredictedPartition
from wholetrack.catalogue.manifest import RunSpec, write_manifest
from wholetrack.catalogue.store import Store
from wholetrack.catalogue.tables import Failed, failure_table
from wholetrack.catalogue.target import Target

N_FILES = 24


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(N_FILES):
        (folder / f"{i}.wav").write_bytes(recording(i) if i % 8 else b"not a recording")
    return folder


def start(models: Path, music: str | Path, target: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(models, "catalogue", music, "--out", target, "--partition-files", "3"),
        env=os.environ | {"WHOLETRACK_DEVICE": "cpu", "WHOLETRACK_DEFAULT_MODEL": "twin"} | environment,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timing
def test_a_run_that_is_killed_twice_has_every_file_once(
    models: Path, music: Path, object_store: ObjectStore, bucket: str
) -> None:
    client = object_store.client()

    def n_committed() -> int:
        return len(client.glob(f"{bucket}/results/predictions/*"))

    for n_parts in (2, 4):
        with start(models, music, f"s3://{bucket}/results") as process:
            until(lambda n=n_parts: n_committed() >= n or process.poll() is not None, seconds=250, poll_s=0.1)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    n_before = n_committed()
    with start(models, music, f"s3://{bucket}/results") as process:
        output, errors = process.communicate()
    assert process.returncode == 3, errors
    found = json.loads(output)
    assert (found["files"], found["predicted"], found["failed"]) == (N_FILES, N_FILES - 3, 3)
    assert found["done_by_earlier_runs"] == 3 * n_before >= 12
    assert names(client, f"{bucket}/results") == {f"{music}/{i}.wav": 1 for i in range(N_FILES)}


@pytest.mark.timing
def test_ctrl_c_ends_a_run_that_can_be_continued(
    models: Path, music: Path, object_store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    client, interrupted = object_store.client(), threading.Event()
    client.put([str(path) for path in sorted(music.iterdir())], f"{bucket}/music/")
    source, target = f"s3://{bucket}/music", tmp_path / "results"
    names_of_files = [f"{source}/{path.name}" for path in sorted(music.iterdir())]

    def wait_for_the_interruption(_method: str, path: str) -> None:
        """Return no file of the second half of the list before the run is interrupted."""
        if path.endswith(".wav") and f"s3:/{path}" >= names_of_files[N_FILES // 2]:
            interrupted.wait()

    object_store.refusal = wait_for_the_interruption
    with start(models, source, str(target)) as process:
        until(lambda: (target / "predictions").exists() or process.poll() is not None, seconds=250)
        process.send_signal(signal.SIGINT)
        interrupted.set()
        output, errors = process.communicate()
    assert process.returncode == 130, errors
    found = json.loads(output)
    assert (found["finished"], found["files"]) == (False, N_FILES)
    assert "files are done; run the same command again to continue" in errors
    assert errors.endswith("wholetrack: interrupted\n")
    with start(models, source, str(target)) as process:
        output, errors = process.communicate()
    assert json.loads(output)["done_by_earlier_runs"] == found["predicted"] + found["failed"]
    assert names(LocalFileSystem(), str(target)) == dict.fromkeys(names_of_files, 1)


class Killed(BaseException):
    """Stands for the end of the process."""


def run_until_killed(url: str, folder: Path, kill_at: int | None) -> Iterator[str]:
    """Commit all partitions with a store that ends the process before or after its n-th operation; yield operations."""
    store = Store(url, {})
    operations: list[str] = []
    put, write, remove = store.put, store.write, store.remove_unfinished

    def operation(name: str) -> None:
        operations.append(name)
        if len(operations) == kill_at:
            raise Killed

    def killed_put(name: str, source: Path) -> None:
        operation(f"before {name}")
        put(name, source)
        operation(f"after {name}")

    def killed_write(name: str, content: bytes) -> None:
        operation(f"before {name}")
        write(name, content)
        operation(f"after {name}")

    def killed_remove() -> None:
        operation("before removing")
        remove()
        operation("after removing")

    for name, killed in (("put", killed_put), ("write", killed_write), ("remove_unfinished", killed_remove)):
        setattr(store, name, killed)
    target = Target(store)
    spec = RunSpec(
        source="nowhere", model="m", version="1", model_sha256="", precision="float32", hop_s=None, taxonomy=None,
        top_k=3, max_upload_bytes=1, max_duration_s=1.0, max_windows=1,
    )  # fmt: skip
    try:
        listing = (ListedFile(f"{i}.mp3", 1, None, None) for i in range(5))
        manifest = target.manifest(spec) or write_manifest(store, spec, listing, partition_files=2, folder=folder)
        committed = target.committed()
        for index in set(range(manifest.n_partitions)) - committed:
            # Each attempt fails other files, as if errors had passed.
            files = manifest.partition(index).files
            n_failed = (kill_at or 0) % (len(files) + 1)
            result = PredictedPartition(index, [], [Failed(file, "code", "Sentence.") for file in files[:n_failed]])
            others = failure_table([Failed(file, "predicted", "") for file in files[n_failed:]])
            target.commit(index, others, failure_table(result.failed))
        target.finish()
    except Killed:
        pass
    yield from operations


@pytest.mark.parametrize("folder", ["local", "memory"])
def test_a_run_that_is_killed_at_any_operation_has_every_file_once(folder: str, tmp_path: Path) -> None:
    n_operations = len(list(run_until_killed(str(tmp_path / "undisturbed"), tmp_path, None)))
    assert n_operations == 2 * (1 + 3 * 2 + 1)
    for kill_at in range(1, n_operations + 1):
        url = str(tmp_path / str(kill_at)) if folder == "local" else f"memory://{tmp_path.name}/{kill_at}"
        list(run_until_killed(url, tmp_path, kill_at))
        list(run_until_killed(url, tmp_path, max(1, kill_at // 2)))
        list(run_until_killed(url, tmp_path, None))
        store = Store(url, {})
        assert names(store._fs, store._root) == {f"{i}.mp3": 1 for i in range(5)}, kill_at
        target = Target(store)
        assert target.committed() == {0, 1, 2}
        assert not store.names("_unfinished")
