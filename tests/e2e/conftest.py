"""A real server in a process of its own, shared by the tests of the whole way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.server import Server, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as `make serve` starts it, shared by the tests."""
    with running_server(tmp_path_factory.mktemp("server")) as started:
        yield started
        started.wait_until_clean()
