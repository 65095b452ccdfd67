"""Catalogues in a Ray cluster of several nodes on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.catalogues import command, flat, names, recording, rows
from tests.harness.object_store import ObjectStore
from tests.harness.paths import PROJECT
from tests.harness.waiting import until
from wholetrack.catalogue.cluster import Cluster
from wholetrack.catalogue.errors import CatalogueError
from wholetrack.catalogue.run import run_catalogue
from wholetrack.catalogue.workplace import CatalogueOptions
from wholetrack.settings import Settings

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
N_FILES = 24


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster whose head runs no actors, with two nodes that do."""
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
    yield running
    running.shutdown()


def environment(models: Path) -> dict[str, str]:
    return os.environ | {
        "WHOLETRACK_DEVICE": "cpu",
        "WHOLETRACK_DEFAULT_MODEL": "twin",
        "WHOLETRACK_MODELS_DIR": str(models),
    }


@pytest.mark.timing
def test_a_node_that_is_lost_costs_no_file(
    models: Path, settings: Settings, cluster: Any, object_store: ObjectStore, bucket: str
) -> None:
    client = object_store.client()
    for i in range(N_FILES):
        client.pipe_file(f"{bucket}/music/{i}.wav", recording(i) if i % 8 else b"not a recording")
    source = f"s3://{bucket}/music"
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
    arguments = ["catalogue", source, "--partition-files", "3"]
    with subprocess.Popen(
        command(models, *arguments, "--out", f"s3://{bucket}/results", "--ray-address", cluster.address),
        env=environment(models),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until(
            lambda: client.glob(f"{bucket}/results/predictions/*") or process.poll() is not None,
            seconds=250,
            poll_s=0.2,
        )
        cluster.remove_node(nodes[0], allow_graceful=False)
        output, errors = process.communicate()
    assert process.returncode == 3, errors
    found = json.loads(output)
    assert (found["files"], found["predicted"], found["failed"]) == (N_FILES, N_FILES - 3, 3)
    assert names(client, f"{bucket}/results") == {f"{source}/{i}.wav": 1 for i in range(N_FILES)}

    options = CatalogueOptions(source, f"s3://{bucket}/here")
    run_catalogue(options, settings, restart=False, cluster=None, on_end=lambda _: None)
    for folder in ("predictions", "failures"):
        expected = {row["file"]: row for row in rows(client, f"{bucket}/here/{folder}")}
        for row in rows(client, f"{bucket}/results/{folder}"):
            assert flat(row) == pytest.approx(flat(expected[row["file"]]), abs=1e-5)


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (Cluster(), (2, 5)),
        (Cluster(cpus_per_actor=4), (4, 2)),
        (Cluster(actors=50), (2, 50)),
        (Cluster(cpus_per_actor=1, gpus_per_actor=0.5), (1, 4)),
        (Cluster(cpus_per_actor=1, gpus_per_actor=0.5, networks=3), (1, 7)),
    ],
    ids=str,
)
def test_actors_fill_the_cluster(cluster: Cluster, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from wholetrack.catalogue import on_ray

    resources = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 2.0}, {"memory": 1.0}]
    nodes = [{"Alive": True, "Resources": each} for each in resources]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 1.0}}])
    assert on_ray._room(cluster) == expected
    with pytest.raises(CatalogueError, match="no node of the Ray cluster has room for an actor with 9 CPUs and 1 GPUs"):
        on_ray._room(Cluster(cpus_per_actor=9, gpus_per_actor=1.0))


def test_only_a_run_in_a_cluster_imports_ray() -> None:
    program = (
        "import sys; import wholetrack.api.app, wholetrack.cli.commands; "
        "assert not {'ray', 'fsspec', 's3fs', 'pyarrow'} & set(sys.modules); "
        "import wholetrack.catalogue.run; assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
