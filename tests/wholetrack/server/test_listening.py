"""The addresses that the server listens on."""

from __future__ import annotations

import socket

import pytest

from wholetrack.errors import StartupError
from wholetrack.server.listening import listening_sockets, url_of


@pytest.mark.parametrize(("host", "reachable"), [("::", {"127.0.0.1", "::1"}), ("0.0.0.0", {"127.0.0.1"})])
def test_a_wildcard_address_is_reachable_by_its_families(host: str, reachable: set[str]) -> None:
    (listening,) = listening_sockets(host, 0, setting="WHOLETRACK_PORT")
    with listening:
        for address in ("127.0.0.1", "::1"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family) as client:
                status = client.connect_ex((address, listening.getsockname()[1]))
            assert (status == 0) == (address in reachable), address


def test_all_addresses_of_a_name_share_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)), (socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    four, six = listening_sockets("localhost", 0, setting="WHOLETRACK_PORT")
    with four, six:
        port = four.getsockname()[1]
        assert url_of(four) == f"http://127.0.0.1:{port}"
        assert url_of(six) == f"http://[::1]:{port}"


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "in use"), ("192.0.2.1", "assign"), ("name.invalid", "cannot listen on name")]
)
def test_an_address_that_is_not_available_is_reported_with_its_setting(host: str, expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartupError) as caught:
        listening_sockets(host, taken.getsockname()[1], setting="WHOLETRACK_PROBE_PORT")
    assert expected in str(caught.value)
    assert str(caught.value).endswith("change WHOLETRACK_HOST or WHOLETRACK_PROBE_PORT")


def test_two_ports_may_not_be_the_same() -> None:
    (first,) = listening_sockets("127.0.0.1", 0, setting="WHOLETRACK_PORT")
    with first, pytest.raises(StartupError, match="in use"):
        listening_sockets("127.0.0.1", first.getsockname()[1], setting="WHOLETRACK_PROBE_PORT")
