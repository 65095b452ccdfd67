"""Compose projects built from this checkout, on ports of their own, removed at the end."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.harness.commands import run

# Where the official base image cannot be pulled, its substitute is built from the Python that is installed.
PYTHON = ".".join(platform.python_version_tuple()[:2])
# The official image of Prometheus cannot be pulled everywhere; Debian's package reads the same configuration.
_PROMETHEUS = """\
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus
RUN mkdir /prometheus && chown nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus"]
"""
_SUBSTITUTES = {
    "services": {
        "wholetrack": {"build": {"args": {"PYTHON_VERSION": PYTHON}}},
        "prometheus": {
            "image": "wholetrack-test:prometheus",
            "build": {"context": ".", "dockerfile_inline": _PROMETHEUS},
        },
    }
}


@dataclass(frozen=True)
class ComposeProject:
    """A Compose project.

    Attributes:
        name: Name of the project.
        port: Port of this machine that the service or its proxy is published on.
        files: The Compose files.
        environment: Variables for the Compose files.
        key: API key to send with requests; None for none.
    """

    name: str
    port: int
    files: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    key: str | None = None

    @property
    def url(self) -> str:
        """Address of the service or its proxy, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str) -> str:
        """Run ``docker compose`` for this project and return its standard output."""
        files = [argument for file in self.files for argument in ("-f", file)]
        variables = {"WHOLETRACK_PUBLISHED_PORT": str(self.port), **self.environment}
        return run("docker", "compose", "-p", self.name, *files, *arguments, **variables)

    def up(self, *arguments: str) -> float:
        """Start the project, wait until it is healthy, and return how long that took in seconds."""
        began = time.monotonic()
        self.compose("up", "--detach", "--wait", *arguments)
        return time.monotonic() - began

    def python(self, program: str, *, index: int = 1) -> str:
        """Run a Python program in a container of the service and return its standard output."""
        return self.compose("exec", "-T", "--index", str(index), "wholetrack", "python", "-c", program).strip()

    def inspect(self, service: str = "wholetrack") -> list[dict[str, Any]]:
        """Return the output of ``docker inspect`` for the containers of a Compose service."""
        identifiers = self.compose("ps", "--all", "--quiet", service).split()
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", *identifiers))
        return found

    def post(self, content: Any, *, timeout: float = 120, **parameters: str) -> httpx.Response:
        """Request a prediction, with the recording as the raw body."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.post(
            f"{self.url}/v1/predict", content=content, params=parameters, headers=headers, timeout=timeout
        )


@contextmanager
def compose_project(
    name: str, port: int, folder: Path, *files: str, key: str | None = None, **environment: str
) -> Iterator[ComposeProject]:
    """Yield a project, and remove its containers, networks and volumes at the end of the block.

    Args:
        name: Name of the project.
        port: Port of this machine to publish the service or its proxy on.
        folder: Folder for one further Compose file, which replaces images that cannot be pulled everywhere.
        files: The Compose files, relative to the checkout.
        key: API key to send with requests.
        environment: Variables for the Compose files.
    """
    substitutes = folder / "substitutes.yml"
    substitutes.write_text(json.dumps(_SUBSTITUTES))
    project = ComposeProject(name, port, [*files, str(substitutes)], environment, key)
    try:
        yield project
    finally:
        project.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
