"""Keys: where they come from, whose they are, and what each may ask."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import SecretStr

from wholetrack.api.keys import Keys, new_key
from wholetrack.errors import ErrorKind, ServiceError, StartupError
from wholetrack.settings import Settings, settings_with_sources

_ALICE, _BOB = "alices-key-of-enough-characters", "bobs-key-of-enough-characters"


def keys_of(**settings: object) -> Keys:
    found = Keys.load(Settings.model_validate(settings))
    assert found is not None
    return found


def test_without_settings_there_are_no_keys() -> None:
    assert Keys.load(Settings()) is None


def test_keys_of_the_environment_and_of_the_file(tmp_path: Path) -> None:
    key, digest = new_key()
    file = tmp_path / "keys.toml"
    file.write_text(f'[carol]\nsha256 = "{digest}"\n[dave]\nsha256 = "{"0" * 64}"\nconcurrent = 2\n')
    keys = keys_of(api_keys=f"alice:{_ALICE}, bob:{_BOB}", api_keys_file=file)
    for presented, identifier in ((_ALICE, "alice"), (_BOB, "bob"), (key, "carol")):
        found = keys.of(presented)
        assert found
        assert found.identifier == identifier
    for wrong in ("", "alice", _ALICE[:-1], _ALICE + "x", f"alice:{_ALICE}", digest, "ключ", "0" * 64):
        assert keys.of(wrong) is None


def test_new_keys_are_long_and_never_the_same() -> None:
    made = {new_key() for _ in range(50)}
    assert len(made) == 50
    for key, digest in made:
        assert len(key) >= 43
        assert hashlib.sha256(key.encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[alice", "cannot be read"),
        ("[alice]\nsha256 = 'short'", "alice.sha256"),
        (f"[alice]\nsha256 = '{'0' * 64}'\nconcurrent = 0", "alice.concurrent"),
        (f"[alice]\nsha256 = '{'0' * 64}'\nrate = 1", "alice.rate"),
        (f"[alice]\nsha256 = '{'0' * 64}'\nweight = 9", "alice.weight"),
        (f"['a b']\nsha256 = '{'0' * 64}'", "keep its format"),
        ("", "there is none"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_file_stops_the_start(tmp_path: Path, content: str | None, complaint: str) -> None:
    file = tmp_path / "keys.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartupError, match=complaint):
        keys_of(api_keys_file=file)


@pytest.mark.parametrize(
    "text",
    [
        *("alice", "alice:short", "sixteen-secret-characters", "", f":{_ALICE}", f"a/b:{_ALICE}"),
        *(f"alice:{_ALICE} bob", f"alice:{_ALICE}é"),
    ],
)
def test_a_bad_environment_stops_the_start_without_telling_it(text: str) -> None:
    with pytest.raises(StartupError) as caught:
        keys_of(api_keys=text)
    assert "wholetrack key NAME" in str(caught.value)
    assert not text or text not in str(caught.value)


def test_settings_hide_keys() -> None:
    settings = Settings(api_keys=SecretStr(f"alice:{_ALICE}"))
    assert _ALICE not in str(settings_with_sources(settings))
    assert _ALICE not in repr(settings)


def test_a_rate_for_each_key() -> None:
    keys = keys_of(api_keys=f"alice:{_ALICE} bob:{_BOB}", key_requests_per_minute=3)
    alice, bob = keys.of(_ALICE), keys.of(_BOB)
    assert alice
    assert bob
    for _ in range(3):
        alice.count()
    with pytest.raises(ServiceError, match="3 times a minute") as caught:
        alice.count()
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_s
    assert 1 <= caught.value.retry_after_s <= 120
    bob.count()


def test_so_many_at_a_time_for_each_key(tmp_path: Path) -> None:
    key, digest = new_key()
    file = tmp_path / "keys.toml"
    file.write_text(f'[carol]\nsha256 = "{digest}"\nconcurrent = 1\n')
    keys = keys_of(api_keys=f"alice:{_ALICE}", api_keys_file=file, key_concurrent=2)
    alice, carol = keys.of(_ALICE), keys.of(key)
    assert alice
    assert carol
    with carol.place(), alice.place(), alice.place():
        for full in (carol, alice):
            with pytest.raises(ServiceError, match="under way, as many as it may"), full.place():
                pass
    with pytest.raises(KeyError), carol.place():
        raise KeyError
    with carol.place():
        pass
