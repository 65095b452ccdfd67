"""The service on a Ray cluster of several nodes on this machine, in a process of its own.

The process reads commands from standard input, one JSON object in each line, and responds in the same way.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import yaml

from tests.harness.paths import PROJECT
from tests.harness.ports import free_port
from tests.harness.processes import descendants
from tests.harness.server import is_ready, service_environment
from tests.harness.waiting import until

APPLICATION = "wholetrack"
CONFIG = PROJECT / "deploy" / "ray" / "serve" / "config.yaml"

_HEAD = {"resources": {"head": 0.001}, "num_cpus": 0}
# Ray keeps most of its memory for objects in files, which a small machine shares with everything else.
_OBJECT_STORE_BYTES = 200 << 20
_READY_S = _EXIT_S = 60.0
_POLL_S = 0.1
_ENVIRONMENT = {
    "PYTHONPATH": str(PROJECT),
    "RAY_USAGE_STATS_ENABLED": "0",
    # On a busy machine, a process may take longer than a minute to start.
    "RAY_worker_register_timeout_seconds": "300",
}


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A running application.

    Attributes:
        url: Address of Serve's proxy, without a trailing slash.
        temp_dir: Folder of the service for uploads.
        log: File with the log of all replicas.
    """

    url: str
    temp_dir: Path
    log: Path
    _process: subprocess.Popen[str]

    def command(self, name: str, **arguments: Any) -> Any:
        """Have the process carry out a command, and return its response."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": name, **arguments}) + "\n")
        self._process.stdin.flush()
        response = self._process.stdout.readline()
        assert response, f"the cluster has ended: {self.log.read_text()}"
        return json.loads(response)

    def post(self, content: Path | bytes, filename: str = "recording", **query: Any) -> httpx.Response:
        """Request a prediction, with the recording as multipart form data."""
        if isinstance(content, Path):
            filename, content = content.name, content.read_bytes()
        files = {"file": (filename, content)}
        return httpx.post(f"{self.url}/v1/predict", params=query, files=files, timeout=120)

    def get(self, path: str) -> httpx.Response:
        """Send a GET request."""
        return httpx.get(self.url + path, timeout=60)

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """Return the processes of the replicas of a deployment."""
        title = f"ray::ServeReplica:{APPLICATION}:{deployment}"
        return [child for child, _ in self.processes() if _title(child).startswith(title)]

    def processes(self) -> list[tuple[psutil.Process, str]]:
        """Return all processes of the cluster with their names."""
        return list(descendants(psutil.Process(self._process.pid)))

    def decoders(self) -> list[psutil.Process]:
        """Return the running decoders."""
        return [child for child, name in self.processes() if name.startswith("ffmpeg")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def running_cluster(
    folder: Path, options: Mapping[str, Any], *, nodes: list[int], **settings: Any
) -> Iterator[RayCluster]:
    """Start a cluster and the application on it, and stop both at the end of the block.

    Args:
        folder: An empty folder for uploads and the log.
        options: Options by deployment, which replace those of the configuration.
        nodes: CPUs of each node. The first is the head, which runs the ingress.
        settings: Settings of the service by their lower-case names, without prefix.
    """
    temp_dir, log, port = folder / "uploads", folder / "ray.log", free_port()
    temp_dir.mkdir()
    plan = {"port": port, "nodes": nodes, "options": options}
    command = [sys.executable, "-m", "tests.harness.ray_cluster", json.dumps(plan)]
    with (
        # The paths of sockets below it must be short.
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as ray_folder,
        log.open("wb") as stderr,
        subprocess.Popen(
            command,
            cwd=PROJECT,
            env=service_environment(temp_dir, settings) | _ENVIRONMENT | {"RAY_TMPDIR": ray_folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        cluster = RayCluster(f"http://127.0.0.1:{port}", temp_dir, log, process)
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), log.read_text()
            until(lambda: is_ready(cluster.url), seconds=_READY_S, poll_s=_POLL_S, context=log.read_text)
            yield cluster
            cluster.command("stop")
            process.wait(timeout=_EXIT_S)
        finally:
            for child, _ in cluster.processes() if process.poll() is None else ():
                child.kill()
            process.kill()


class _Commands:
    """Carries out the commands.

    Args:
        plan: Port, nodes, and options of the deployments.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        import ray
        from ray import serve
        from ray.cluster_utils import Cluster

        self._options = plan["options"]
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": plan["nodes"][0],
                "resources": {"head": 1},
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
            },
        )
        self._nodes = [self._cluster.head_node, *map(self._add, plan["nodes"][1:])]
        ray.init(address=self._cluster.address, logging_level=logging.WARNING)
        serve.start(http_options={"host": "127.0.0.1", "port": plan["port"], "location": "HeadOnly"})
        self.deploy()

    def _add(self, cpus: int) -> Any:
        return self._cluster.add_node(num_cpus=cpus, object_store_memory=_OBJECT_STORE_BYTES)

    def deploy(self, **options: dict[str, Any]) -> None:
        """Deploy the application as `serve deploy` does, with further options for some deployments."""
        from ray import serve
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        given = {
            name: self._options.get(name, {}) | options.get(name, {}) for name in ("ingress", "analysis", "network")
        }
        given["ingress"] = {"ray_actor_options": _HEAD} | given["ingress"]
        (application,) = yaml.safe_load(CONFIG.read_text())["applications"]
        application["deployments"] = [one | given[one["name"]] for one in application["deployments"]]
        # The settings are those of the environment.
        del application["runtime_env"]
        client = _get_global_client()
        assert client is not None
        client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))
        while (status := serve.status().applications[APPLICATION]).status != "RUNNING":
            if status.status == "DEPLOY_FAILED":
                raise RuntimeError(status.message)
            time.sleep(_POLL_S)

    def add(self, cpus: int) -> int:
        """Add a node, and return its number."""
        self._nodes.append(self._add(cpus))
        return len(self._nodes) - 1

    def kill(self, node: int) -> list[int]:
        """Kill a node and the replicas on it with SIGKILL; return the processes that the replicas have started."""
        (raylet,) = self._nodes[node].all_processes["raylet"]
        replicas = psutil.Process(raylet.process.pid).children()
        started = [child.pid for replica in replicas for child, _ in descendants(replica)]
        self._cluster.remove_node(self._nodes[node], allow_graceful=False)
        for replica in replicas:
            if replica.is_running():
                replica.kill()
        return started

    def stop(self) -> None:
        """Stop the cluster."""
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()


def main() -> None:
    """Start a cluster and carry out commands until it is stopped."""
    responses: IO[str] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands = _Commands(json.loads(sys.argv[1]))
    print("ready", file=responses, flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        name = arguments.pop("command")
        print(json.dumps(getattr(commands, name)(**arguments)), file=responses, flush=True)
        if name == "stop":
            return


if __name__ == "__main__":
    main()
