"""Every route against its own documentation, asked by a program that reads it and tries what it allows and forbids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.server import Server, running_server

# One example of each is in the documentation, and bytes that are no audio are refused although a schema cannot say so.
_NOT_ASKED = "positive_data_acceptance"


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/openapi.json").json()
    return found


def references(node: object) -> set[str]:
    """Everything that a part of the document points to."""
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = references(document)
    assert "#/components/schemas/Problem" in found
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


@pytest.mark.parametrize("settings", [{}, {"api_keys": "alice:alices-key-of-enough-characters"}], ids=["open", "keys"])
def test_no_answer_is_undocumented(tmp_path: Path, settings: dict[str, str]) -> None:
    """No server error, no status, header or body that the document does not have, nothing heard without a key."""
    with running_server(tmp_path, **settings, max_upload_bytes=1_000_000) as started:
        reader = [sys.executable, "-m", "schemathesis.cli", "run", f"{started.url}/openapi.json", "--no-color"]
        options = ["--max-examples", "40", "--seed", "1", "--exclude-checks", _NOT_ASKED, "--workers", "1"]
        keys = ["--header", "Authorization: Bearer alices-key-of-enough-characters"] if settings else []
        command = [*reader, *options, *keys]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert "Tested: 6" in done.stdout
    assert "resolv" not in done.stdout, done.stdout
