"""API keys: loading, authentication, and the limits of each key."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from pydantic import SecretStr

from wholetrack.api.admission import Admission
from wholetrack.api.keys import Keys, new_key, permits
from wholetrack.cli.settings_table import settings_rows
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.settings import Settings

_ALICE, _BOB = "alices-key-of-enough-characters", "bobs-key-of-enough-characters"


def load_keys(**settings: object) -> Keys:
    keys = Keys.load(Settings.model_validate(settings))
    assert keys is not None
    return keys


def test_without_settings_there_are_no_keys() -> None:
    assert Keys.load(Settings()) is None


def test_keys_come_from_the_setting_and_from_the_file(tmp_path: Path) -> None:
    key, digest = new_key()
    file = tmp_path / "keys.toml"
    file.write_text(f'[carol]\nsha256 = "{digest}"\n[dave]\nsha256 = "{"0" * 64}"\nconcurrent = 2\n')
    keys = load_keys(api_keys=f"alice:{_ALICE}, bob:{_BOB}", api_keys_file=file)
    for presented, identifier in ((_ALICE, "alice"), (_BOB, "bob"), (key, "carol")):
        found = keys.find(presented)
        assert found
        assert found.identifier == identifier
    for wrong in ("", "alice", _ALICE[:-1], _ALICE + "x", f"alice:{_ALICE}", digest, "ключ", "0" * 64):
        assert keys.find(wrong) is None


def test_new_keys_are_long_and_unique() -> None:
    made = {new_key() for _ in range(50)}
    assert len(made) == 50
    for key, digest in made:
        assert len(key) >= 43
        assert hashlib.sha256(key.encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[alice", "cannot read"),
        ("[alice]\nsha256 = 'short'", "alice.sha256"),
        (f"[alice]\nsha256 = '{'0' * 64}'\nconcurrent = 0", "alice.concurrent"),
        (f"[alice]\nsha256 = '{'0' * 64}'\nrate = 1", "alice.rate"),
        (f"[alice]\nsha256 = '{'0' * 64}'\nweight = 9", "alice.weight"),
        (f"['a b']\nsha256 = '{'0' * 64}'", "the API key file .* is invalid"),
        ("", "none was found"),
        (None, "cannot read"),
    ],
)
def test_an_invalid_file_prevents_startup(tmp_path: Path, content: str | None, complaint: str) -> None:
    file = tmp_path / "keys.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartupError, match=complaint):
        load_keys(api_keys_file=file)


@pytest.mark.parametrize(
    "text",
    [
        *("alice", "alice:short", "sixteen-secret-characters", "", f":{_ALICE}", f"a/b:{_ALICE}"),
        *(f"alice:{_ALICE} bob", f"alice:{_ALICE}é"),
    ],
)
def test_an_invalid_setting_prevents_startup_and_is_not_quoted(text: str) -> None:
    with pytest.raises(StartupError) as caught:
        load_keys(api_keys=text)
    assert "wholetrack key NAME" in str(caught.value)
    assert not text or text not in str(caught.value)


def test_settings_hide_keys() -> None:
    settings = Settings(api_keys=SecretStr(f"alice:{_ALICE}"))
    assert _ALICE not in str(settings_rows(settings))
    assert _ALICE not in repr(settings)


def test_each_key_has_its_own_rate_limit() -> None:
    keys = load_keys(api_keys=f"alice:{_ALICE} bob:{_BOB}", key_requests_per_minute=3)
    alice, bob = keys.find(_ALICE), keys.find(_BOB)
    assert alice
    assert bob
    for _ in range(3):
        alice.count_request()
    with pytest.raises(ServiceError, match="3 requests per minute") as caught:
        alice.count_request()
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_s
    assert 1 <= caught.value.retry_after_s <= 120
    bob.count_request()


def test_a_request_that_is_not_counted_leaves_room_for_another() -> None:
    alice = load_keys(api_keys=f"alice:{_ALICE}", key_requests_per_minute=2).find(_ALICE)
    assert alice
    for _ in range(10):
        alice.count_request()
        alice.uncount_request()
    alice.count_request()
    alice.count_request()
    with pytest.raises(ServiceError, match="2 requests per minute"):
        alice.count_request()


def test_each_key_has_its_own_concurrency_limit(tmp_path: Path) -> None:
    key, digest = new_key()
    file = tmp_path / "keys.toml"
    file.write_text(f'[carol]\nsha256 = "{digest}"\nconcurrent = 1\n')
    keys = load_keys(api_keys=f"alice:{_ALICE}", api_keys_file=file, key_concurrent=2)
    alice, carol = keys.find(_ALICE), keys.find(key)
    assert alice
    assert carol
    with carol.permit(), alice.permit(), alice.permit():
        for full in (carol, alice):
            with pytest.raises(ServiceError, match="limit of requests in progress"), full.permit():
                pass
    with pytest.raises(KeyError), carol.permit():
        raise KeyError
    with carol.permit():
        pass


def test_a_request_that_any_admission_refuses_does_not_count_for_the_rate_limit() -> None:
    key = load_keys(api_keys=f"alice:{_ALICE}", key_requests_per_minute=2).find(_ALICE)
    assert key

    async def request_with_one_full() -> None:
        first, full = Admission(5), Admission(1)
        async with full.admit():
            for _ in range(5):
                key.count_request()
                with pytest.raises(ServiceError, match="overloaded"):
                    async with permits(key, first, full):
                        pytest.fail("it was admitted")
        assert first.in_progress == 0
        key.count_request()
        async with permits(key, first, full):
            assert (first.in_progress, full.in_progress) == (1, 1)

    asyncio.run(request_with_one_full())
