"""Which pages may open a WebSocket."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from wholetrack.api.origins import check_origin
from wholetrack.errors import ErrorKind, ServiceError


def is_accepted(origin: str | None, host: str, allowed: tuple[str, ...] = ()) -> bool:
    headers = {"host": host} | ({"origin": origin} if origin is not None else {})
    try:
        check_origin(Headers(headers), allowed)
    except ServiceError as error:
        return error.kind is not ErrorKind.FORBIDDEN_ORIGIN
    return True


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "music.example"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://localhost:8000", "LOCALHOST:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://music.example", "music.example"),
        ("http://music.example", "music.example:80"),
        # A proxy has removed TLS.
        ("https://music.example", "music.example"),
        ("https://music.example", "music.example:443"),
    ],
)
def test_the_pages_of_the_service_and_clients_without_pages_are_accepted(origin: str | None, host: str) -> None:
    assert is_accepted(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://other.example", "music.example"),
        ("http://music.example:8001", "music.example:8000"),
        ("http://music.example:8000", "music.example"),
        ("http://music.example.other.example", "music.example"),
        ("null", "music.example"),
        ("", ""),
        ("file://music.example", "music.example"),
        ("http://music.example:99999", "music.example"),
        ("http://[music.example", "music.example"),
        ("http://", ""),
        ("http://music.example", ""),
    ],
)
def test_all_other_pages_are_refused(origin: str, host: str) -> None:
    assert not is_accepted(origin, host)


def test_configured_origins_are_accepted() -> None:
    assert is_accepted("https://other.example", "music.example", ("https://other.example",))
    assert not is_accepted("https://other.example:8443", "music.example", ("https://other.example",))
    assert is_accepted("https://other.example", "music.example", ("*",))
