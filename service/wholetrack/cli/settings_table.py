"""The settings as rows of a table, for ``wholetrack settings``."""

from __future__ import annotations

import json

from pydantic_settings import EnvSettingsSource

from wholetrack.deprecated_settings import RENAMED
from wholetrack.settings import PREFIX, Settings
from wholetrack.variables import without_unset


def settings_rows(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Return each setting as (variable, value, source, description).

    The source is ``environment``, ``configured`` (in the file ``.env`` or on the command line) or ``default``.
    """
    return [
        (f"{PREFIX}{name.upper()}", _format(getattr(settings, name)), _source(settings, name), field.description or "")
        for name, field in type(settings).model_fields.items()
    ]


def _source(settings: Settings, name: str) -> str:
    if name not in settings.model_fields_set:
        return "default"
    names = [name, *(former for former, current in RENAMED.items() if current == name)]
    variables = without_unset(EnvSettingsSource(type(settings))).env_vars
    return "environment" if any(f"{PREFIX}{each}".lower() in variables for each in names) else "configured"


def _format(value: object) -> str:
    """Return a value as it would be written in a variable; an empty string for None."""
    if isinstance(value, tuple):
        return json.dumps(value)
    return "" if value is None else str(value)
