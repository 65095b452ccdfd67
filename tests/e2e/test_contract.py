"""Every route is tested against its own documentation by schemathesis, with valid and invalid requests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.server import Server, running_server

# For each operation; `make contract` sends more.
_EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "15")
# Random bytes are valid by the schema of an upload, which cannot express that they must be audio.
_EXCLUDED_CHECK = "positive_data_acceptance"


@pytest.fixture(scope="module")
def openapi(server: Server) -> dict[str, Any]:
    document: dict[str, Any] = server.get("/openapi.json").json()
    return document


def references(node: object) -> set[str]:
    """Return all references in a part of the document."""
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def test_every_reference_can_be_resolved(openapi: dict[str, Any]) -> None:
    found = references(openapi)
    assert "#/components/schemas/Problem" in found
    for reference in found:
        node: Any = openapi
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.long, id="open"),
        pytest.param({"api_keys": "alice:alices-key-of-enough-characters"}, id="keys"),
    ],
)
def test_no_response_is_undocumented(tmp_path: Path, settings: dict[str, str]) -> None:
    """No server errors; no undocumented status, header or body; and no success without a required key."""
    with running_server(tmp_path, **settings, max_upload_bytes=1_000_000) as started:
        program = [sys.executable, "-m", "schemathesis.cli", "run", f"{started.url}/openapi.json", "--no-color"]
        options = ["--max-examples", _EXAMPLES, "--seed", "1", "--exclude-checks", _EXCLUDED_CHECK, "--workers", "1"]
        keys = ["--header", "Authorization: Bearer alices-key-of-enough-characters"] if settings else []
        command = [*program, *options, *keys]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout
    assert "Tested: 17" in done.stdout
    assert "resolv" not in done.stdout, done.stdout
