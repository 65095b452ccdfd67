"""Blank values are unset, unknown names are refused, and ``.env.example`` can be used as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.paths import PROJECT
from wholetrack.api.keys import Keys
from wholetrack.cli.settings_table import settings_rows
from wholetrack.deprecated_settings import former_names_in_use
from wholetrack.errors import StartupError
from wholetrack.settings import PREFIX, Settings

_KEYS = {"api_keys", "api_keys_file"}
_OTHERS = [name for name in Settings.model_fields if name not in _KEYS]
_KEY = "alice:0123456789abcdefghij"


@pytest.fixture(autouse=True)
def _without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture(params=["environment", "file"])
def put(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that sets a variable, in the environment or in the file ``.env``."""

    def in_file(name: str, value: str) -> None:
        with (tmp_path / ".env").open("a") as file:
            file.write(f"{name}='{value}'\n")

    return monkeypatch.setenv if request.param == "environment" else in_file


@pytest.mark.parametrize("blank", ["", "  \t"], ids=["empty", "spaces"])
@pytest.mark.parametrize("name", _OTHERS)
def test_a_blank_value_is_unset(name: str, blank: str, put: Callable[[str, str], None]) -> None:
    expected = Settings()
    put(f"{PREFIX}{name.upper()}", blank)
    assert Settings() == expected
    assert Settings().model_fields_set == set()


def test_a_blank_variable_does_not_hide_a_line_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("WHOLETRACK_PORT=9000\nWHOLETRACK_API_KEYS=" + _KEY)
    monkeypatch.setenv("WHOLETRACK_PORT", "")
    monkeypatch.setenv("WHOLETRACK_API_KEYS", " ")
    settings = Settings()
    assert settings.port == 9000
    assert settings.api_keys is not None
    assert settings.api_keys.get_secret_value() == _KEY
    assert ("WHOLETRACK_PORT", "9000", "configured") in [row[:3] for row in settings_rows(settings)]


def test_a_blank_former_name_is_unset(put: Callable[[str, str], None]) -> None:
    put("WHOLETRACK_REPEATS_MB", "")
    assert Settings().cache_mb == 0
    assert former_names_in_use(Settings) == []


@pytest.mark.parametrize("name", sorted(_KEYS))
@pytest.mark.parametrize("blank", ["", "  "], ids=["empty", "spaces"])
def test_a_blank_variable_for_keys_without_a_key_is_refused(
    name: str, blank: str, put: Callable[[str, str], None]
) -> None:
    put(f"{PREFIX}{name.upper()}", blank)
    with pytest.raises(StartupError, match="WHOLETRACK_API_KEYS_FILE but none was found"):
        Keys.load(Settings())


def test_a_blank_variable_for_keys_is_unset_if_the_other_one_has_a_key(
    tmp_path: Path, put: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("WHOLETRACK_API_KEYS_FILE", "")
    monkeypatch.setenv("WHOLETRACK_API_KEYS", _KEY)
    keys = Keys.load(Settings())
    assert keys is not None
    assert keys.find(_KEY.partition(":")[2])
    monkeypatch.delenv("WHOLETRACK_API_KEYS")
    put("WHOLETRACK_API_KEYS", "")
    file = tmp_path / "keys.toml"
    file.write_text(f'[bob]\nsha256 = "{"0" * 64}"\n')
    monkeypatch.setenv("WHOLETRACK_API_KEYS_FILE", str(file))
    assert Keys.load(Settings()) is not None


def _examples() -> list[str]:
    lines = (PROJECT / ".env.example").read_text().splitlines()
    return [line.removeprefix("# ") for line in lines if line.startswith("# WHOLETRACK_")]


def _is_about_keys(line: str) -> bool:
    return line.partition("=")[0].removeprefix(PREFIX).lower() in _KEYS


def test_the_example_lists_every_setting() -> None:
    names = {line.partition("=")[0] for line in _examples()}
    assert {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} <= names


@pytest.mark.parametrize("line", _examples())
def test_a_line_of_the_example_states_the_default(line: str, put: Callable[[str, str], None], tmp_path: Path) -> None:
    defaults = Settings()
    put(*line.split("=", 1))
    if _is_about_keys(line):
        with pytest.raises(StartupError):
            Keys.load(Settings())
    else:
        assert Settings() == defaults
    # Without the quotes that the fixture puts around the value.
    (tmp_path / ".env").write_text(f"{line}\n")
    assert Settings().port == defaults.port


def test_the_whole_example_without_the_lines_about_keys_states_the_defaults(tmp_path: Path) -> None:
    defaults = Settings()
    (tmp_path / ".env").write_text("\n".join(line for line in _examples() if not _is_about_keys(line)))
    assert Settings() == defaults
    assert Keys.load(Settings()) is None


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_mistyped_name_is_refused_with_the_right_one(name: str, put: Callable[[str, str], None]) -> None:
    typo = f"{PREFIX}{name[:-2]}{name[-1]}{name[-2]}".upper()
    put(typo, "1")
    with pytest.raises(ValueError, match=f"{typo} is not a setting; the most similar name is {PREFIX}{name.upper()}$"):
        Settings()


def test_every_unknown_name_is_reported_without_its_value(put: Callable[[str, str], None]) -> None:
    put("WHOLETRACK_API_KEY", "secret")
    put("WHOLETRACK_GRAFANA_PROT", "secret")
    with pytest.raises(ValueError, match="WHOLETRACK_API_KEYS; .*WHOLETRACK_GRAFANA_PORT$") as caught:
        Settings()
    assert "secret" not in str(caught.value)


def test_names_with_another_prefix_are_not_checked(put: Callable[[str, str], None]) -> None:
    put("WHOLETRACKS_PORT", "1")
    put("MY_WHOLETRACK_PROT", "1")
    assert Settings().port == 8000


@pytest.mark.parametrize("service", ["WHOLETRACK", "WHOLETRACK_GPU", "WHOLETRACK_PROBES"])
def test_what_kubernetes_sets_for_a_service_is_ignored(service: str, put: Callable[[str, str], None]) -> None:
    defaults = Settings()
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.0.0.1",
    }.items():
        put(f"{service}_{name}", value)
    assert Settings() == defaults


@pytest.mark.parametrize("name", ["models_dir", "ffmpeg", "temp_dir", "api_keys_file"])
def test_a_tilde_is_the_home_folder(
    name: str, put: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    put(f"{PREFIX}{name.upper()}", "~/folder")
    assert getattr(Settings(), name) == Path("/home/alice/folder")


def test_the_home_folder_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no such home folder: ~nobody-has-this-name/x"):
        Settings(temp_dir=Path("~nobody-has-this-name/x"))


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith("_s")])
@pytest.mark.parametrize("value", ["inf", "nan", "0", "1e10"])
def test_a_time_that_no_timer_accepts_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith("_per_s"):
        return
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    with pytest.raises(ValueError, match=name):
        Settings()
