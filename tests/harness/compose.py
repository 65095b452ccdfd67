"""Compose projects for benchmarks and tests: built of this checkout, on ports of their own, gone afterwards."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.harness.server import PROJECT

# The stand-in for the base image, where no other can be pulled, is of the Python that is here.
PYTHON = ".".join(platform.python_version_tuple()[:2])
# Prometheus' own image cannot be pulled where this is tested; Debian's package reads the same configuration.
_PROMETHEUS = """\
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus
RUN mkdir /prometheus && chown nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus"]
"""
_STAND_INS = {
    "services": {
        "wholetrack": {"build": {"args": {"PYTHON_VERSION": PYTHON}}},
        "prometheus": {
            "image": "wholetrack-test:prometheus",
            "build": {"context": ".", "dockerfile_inline": _PROMETHEUS},
        },
    }
}


def run(*command: str, **environment: str) -> str:
    """What a command prints; its words are the assertion's if it fails."""
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Composed:
    """A Compose project.

    Attributes:
        name: of the project.
        port: of this machine on which it answers.
        files: that describe it.
        environment: variables that they read.
        key: with which it is asked.
    """

    name: str
    port: int
    files: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    key: str | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str) -> str:
        """What `docker compose` prints, with these arguments for this project."""
        files = [argument for file in self.files for argument in ("-f", file)]
        variables = {"WHOLETRACK_PUBLISHED_PORT": str(self.port), **self.environment}
        return run("docker", "compose", "-p", self.name, *files, *arguments, **variables)

    def up(self, *arguments: str) -> float:
        """Start it and wait until it is healthy; how long that took, in seconds."""
        began = time.monotonic()
        self.compose("up", "--detach", "--wait", *arguments)
        return time.monotonic() - began

    def python(self, program: str, *, index: int = 1) -> str:
        """What a program prints in a container of the service."""
        return self.compose("exec", "-T", "--index", str(index), "wholetrack", "python", "-c", program).strip()

    def facts(self, service: str = "wholetrack") -> list[dict[str, Any]]:
        """What the engine knows of a service's containers."""
        identifiers = self.compose("ps", "--all", "--quiet", service).split()
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", *identifiers))
        return found

    def post(self, content: Any, *, timeout: float = 120, **parameters: str) -> httpx.Response:
        """Ask it about a recording."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.post(
            f"{self.url}/v1/predict", content=content, params=parameters, headers=headers, timeout=timeout
        )


@contextmanager
def composed(
    name: str, port: int, folder: Path, *files: str, key: str | None = None, **environment: str
) -> Iterator[Composed]:
    """A project of the Compose files of the checkout, built, and taken down with all that it left."""
    stand_ins = folder / "stand-ins.yml"
    stand_ins.write_text(json.dumps(_STAND_INS))
    project = Composed(name, port, [*files, str(stand_ins)], environment, key)
    try:
        yield project
    finally:
        project.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
