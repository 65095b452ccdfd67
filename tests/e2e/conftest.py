"""A server in a process of its own, shared by the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.server import Server, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as `make serve` starts it."""
    with running_server(tmp_path_factory.mktemp("server")) as started:
        yield started
        started.wait_until_clean()
