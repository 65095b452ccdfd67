"""Catalogues of short files in an object store, on this machine and in a Ray cluster.

Each is killed twice with SIGKILL and continued, and then every file is looked up in the results. A smaller one that is
not disturbed shows the rate, in the cluster also with half of the nodes for the network only. The store is moto's
server, which runs on the same processors. The nodes of the cluster are on this machine as well, and have one of its
processors each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from s3fs import S3FileSystem

from bench.records import benchmark_parser
from tests.harness.catalogues import names
from tests.harness.object_store import ObjectStore
from tests.harness.paths import PROJECT
from tests.harness.ports import free_port
from tests.harness.recordings import generate_tune
from tests.harness.records import print_record
from tests.harness.waiting import until

_BUCKET = "music"
_BAD = (
    b"",
    b"not a recording " * 500,
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"ID3\x03\x00\x00\x00\x00\x0f\x76" + bytes(3000),
)
_ONE_BAD_OF = 50
_RATE_HZ = 8000
_SECONDS = 5
_UPLOADS = 8


@dataclass(frozen=True, slots=True)
class Executor:
    """A way to run the command: its name, and its options."""

    name: str
    options: tuple[str, ...]


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run moto's server in a process of its own during the block."""
    port = free_port()
    store = ObjectStore(f"http://127.0.0.1:{port}")
    server = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _exists(store), seconds=60, poll_s=0.2)
            yield store
        finally:
            process.kill()


def _exists(store: ObjectStore) -> bool:
    try:
        store.client().mkdir(_BUCKET)
    except OSError:
        return False
    return True


def upload(client: S3FileSystem, prefix: str, n_files: int) -> int:
    """Write short recordings, of which one in 50 is bad, and return the number of bad ones."""
    tune = np.resize((generate_tune(60) * 32767 * 0.5).astype("<i2"), 60 * _RATE_HZ)

    def write(number: int) -> bool:
        is_bad = number % _ONE_BAD_OF == _ONE_BAD_OF - 1
        content = _BAD[number // _ONE_BAD_OF % len(_BAD)] if is_bad else _wav(np.roll(tune, 97 * number))
        client.pipe_file(f"{_BUCKET}/{prefix}/{number % 100:02}/{number}.wav", content)
        return is_bad

    with ThreadPoolExecutor(_UPLOADS) as threads:
        return sum(threads.map(write, range(n_files)))


def _wav(samples: Any) -> bytes:
    """Return a WAV file of a few seconds with 16 bits."""
    content = bytes(samples[: _SECONDS * _RATE_HZ].tobytes())
    sizes = [len(content) + 36, 16, 1, 1, _RATE_HZ, 2 * _RATE_HZ, 2, 16, len(content)]
    fields = [size.to_bytes(2 if i in {2, 3, 6, 7} else 4, "little") for i, size in enumerate(sizes)]
    return b"RIFF" + fields[0] + b"WAVEfmt " + b"".join(fields[1:8]) + b"data" + fields[8] + content


def start(store: ObjectStore, executor: Executor, source: str, target: str, partition: int) -> subprocess.Popen[str]:
    """Start the command."""
    arguments = [f"s3://{_BUCKET}/{source}", "--out", f"s3://{_BUCKET}/{target}", "--partition-files", str(partition)]
    return subprocess.Popen(
        [sys.executable, "-m", "wholetrack", "catalogue", *arguments, *executor.options],
        env=os.environ | store.environment | {"WHOLETRACK_DEVICE": "cpu"},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the command to end, and return its summary."""
    output, errors = process.communicate()
    if process.returncode != 3:
        raise SystemExit(f"the command ended with status {process.returncode}: {errors}")
    summary: dict[str, Any] = json.loads(output)
    return summary


def undisturbed(store: ObjectStore, executor: Executor, source: str, partition: int) -> dict[str, Any]:
    """Run the command once, and return its rate as a whole, and without its beginning."""
    target = f"{executor.name}-undisturbed"
    summary = finish(start(store, executor, source, target, partition))
    parts = store.client().glob(f"{_BUCKET}/{target}/predictions/*", detail=True).values()
    times = sorted(part["LastModified"].timestamp() for part in parts)
    after_first = (len(times) - 1) * partition / max(times[-1] - times[0], 1.0)
    return {
        "files": summary["files"],
        "seconds": summary["seconds"],
        "files_per_second": summary["files_per_second"],
        "files_per_second_after_first_partition": round(after_first, 2),
    }


def killed_twice(store: ObjectStore, executor: Executor, source: str, partition: int, n_files: int) -> dict[str, Any]:
    """Kill the command after a third and after two thirds of the partitions, and look every file up in the results."""
    client, target = store.client(), f"{executor.name}-killed"
    n_parts = -(-n_files // partition)
    began, kills = time.monotonic(), []

    def committed() -> int:
        return len(client.glob(f"{_BUCKET}/{target}/predictions/*"))

    for thirds in (1, 2):
        with start(store, executor, source, target, partition) as process:
            until(
                lambda n=thirds: committed() >= n * n_parts // 3 or process.poll() is not None,  # type: ignore[misc]
                seconds=1200,
                poll_s=0.5,
            )
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                raise SystemExit(f"the command ended before it was killed: {process.communicate()}")
        kills.append({"after_s": round(time.monotonic() - began, 1), "partitions_committed": committed()})
    summary = finish(start(store, executor, source, target, partition))
    found = names(client, f"{_BUCKET}/{target}")
    return {
        "files": n_files,
        "partitions": n_parts,
        "kills": kills,
        "seconds": round(time.monotonic() - began, 1),
        "predicted": summary["predicted"],
        "failed": summary["failed"],
        "files_in_results": len(found),
        "files_more_than_once": sum(times > 1 for times in found.values()),
    }


@contextmanager
def ray_nodes(n_nodes: int, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a cluster with nodes of one processor during the block, and yield its address.

    Args:
        n_nodes: Number of nodes.
        environment: Variables for the nodes, such as credentials.
    """
    from ray.cluster_utils import Cluster

    os.environ.update(environment)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
    try:
        for _ in range(n_nodes):
            cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        yield cluster.address
    finally:
        cluster.shutdown()


def main() -> None:
    """Run the benchmark."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--files", type=int, default=5000, help="number of files that are predicted without Ray")
    parser.add_argument("--ray-files", type=int, default=1000, help="number of files that are predicted in the cluster")
    parser.add_argument("--nodes", type=int, default=2, help="number of nodes of the cluster")
    parser.add_argument("--partition-files", type=int, default=50, help="number of files in each partition")
    options = parser.parse_args()
    figures: dict[str, Any] = {"seconds_of_audio": _SECONDS, "partition_files": options.partition_files}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with (
        tempfile.TemporaryDirectory() as folder,
        object_store() as store,
        ray_nodes(options.nodes, store.environment | {"WHOLETRACK_TEMP_DIR": folder}) as address,
    ):
        client = store.client()
        bad = {n: upload(client, f"files-{n}", n) for n in {options.files, options.ray_files}}
        runs = (
            (Executor("local", ()), options.files),
            (Executor("ray", ("--ray-address", address)), options.ray_files),
        )
        split = Executor("ray-networks", ("--ray-address", address, "--networks", str(max(1, options.nodes // 2))))
        for executor, n_files in runs:
            figures[executor.name] = {
                "bad_files": bad[n_files],
                "undisturbed": undisturbed(store, executor, f"files-{options.ray_files}", options.partition_files),
                "killed_twice": killed_twice(store, executor, f"files-{n_files}", options.partition_files, n_files),
            }
        source = f"files-{options.ray_files}"
        figures["ray_with_networks"] = {"undisturbed": undisturbed(store, split, source, options.partition_files)}
    figures["ray"]["nodes"] = options.nodes
    print_record("catalogue", figures, folder=options.record)


if __name__ == "__main__":
    main()
