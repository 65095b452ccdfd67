"""Former names of renamed settings: accepted for one release, with a warning.

To rename a setting, rename its field in :class:`wholetrack.settings.Settings` and add a line to ``RENAMED``; remove the
line one release later.
"""

from __future__ import annotations

import copy
import logging

from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from wholetrack.variables import without_unset

_log = logging.getLogger(__name__)

# Former name of a field -> its current name.
RENAMED = {"repeats_mb": "cache_mb"}


def read_former_names(source: EnvSettingsSource) -> EnvSettingsSource:
    """Return a source that reads the former variable names as if they were the current ones.

    Args:
        source: A source that reads environment variables or a ``.env`` file.
    """
    renamed = copy.copy(source)
    renamed.env_vars = {
        _variable(source, current): source.env_vars[_variable(source, former)]
        for former, current in RENAMED.items()
        if _variable(source, former) in source.env_vars
    }
    return renamed


def former_names_in_use(settings: type[BaseSettings]) -> list[tuple[str, str]]:
    """Return the former variable names that are set, each with the current name.

    Args:
        settings: The class whose variables are looked up, in the environment and in its ``.env`` file.
    """
    sources = [without_unset(source) for source in (EnvSettingsSource(settings), DotEnvSettingsSource(settings))]
    return [
        (_variable(sources[0], former).upper(), _variable(sources[0], current).upper())
        for former, current in RENAMED.items()
        if any(_variable(source, former) in source.env_vars for source in sources)
    ]


def warn_about_former_names(settings: type[BaseSettings]) -> None:
    """Log a warning for each former variable name that is set."""
    for former, current in former_names_in_use(settings):
        _log.warning("%s is deprecated and will be removed in the next release: use %s instead", former, current)


def _variable(source: EnvSettingsSource, field: str) -> str:
    # pydantic-settings stores the names of variables in lower case.
    return f"{source.env_prefix}{field}".lower()
