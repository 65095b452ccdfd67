"""The check of the Host header against DNS rebinding: when it is on, and what it accepts."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from wholetrack.api.host_check import HostCheck, hosts_to_check
from wholetrack.settings import Settings


async def _empty_response(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


def respond(host: str, *allowed: str) -> httpx.Response:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(HostCheck(_empty_response, allowed=allowed))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.get("http://service/", headers={"host": host})

    return asyncio.run(get())


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST.", "music.localhost", "127.0.0.1:8000", "192.0.2.7", "[::1]:8000"),
        *("[::ffff:127.0.0.1]", "wholetrack:8000", "", "music.example.org", "Music.Example.ORG:443", "a.b.internal"),
    ],
)
def test_local_and_allowed_hosts_are_accepted(host: str) -> None:
    assert respond(host, "music.example.org", "*.internal").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "evil.example.", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("[evil.example]", "evilmusic.example.org", "internal.evil.example", "127.0.0.1 evil.example"),
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    response = respond(host, "music.example.org", "*.internal")
    assert response.status_code == 421
    assert response.json()["code"] == "unknown_host"
    assert "WHOLETRACK_ALLOWED_HOSTS" in response.json()["detail"]


def test_an_asterisk_allows_all_hosts() -> None:
    assert respond("evil.example", "*").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_a_service_without_keys_on_a_loopback_address_checks_hosts(host: str) -> None:
    assert hosts_to_check(Settings(host=host), needs_key=False) == ()
    assert hosts_to_check(Settings(host=host), needs_key=True) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "music.example.org"])
def test_a_service_on_another_address_checks_only_configured_hosts(host: str) -> None:
    assert hosts_to_check(Settings(host=host), needs_key=False) is None
    configured = Settings(host=host, allowed_hosts=("proxy.example.org",))
    for needs_key in (False, True):
        assert hosts_to_check(configured, needs_key=needs_key) == ("proxy.example.org", host)
