"""Which variables with the prefix ``WHOLETRACK_`` are settings, which are ignored, and which are rejected.

A variable with a blank value counts as unset: Compose's ``${X:-}`` sets such variables. A name that nobody uses is
rejected, because a mistyped setting would otherwise have no effect.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable

from pydantic_settings import EnvSettingsSource

# Read by the Compose files, from the file .env that the service reads as well.
COMPOSE_VARIABLES = frozenset(
    {"cpus", "gpu", "grafana_port", "keys_file", "memory", "metrics_key_file", "models", "prometheus_port"}
    | {"published_gpu_port", "published_port", "stop_grace_period", "uploads_size"}
)

# Read by the example scripts and the client (the first two), the tests and CI.
_OTHER_PROGRAMS = frozenset({"url", "key", "containers", "no_skips", "shared"})

# Kubernetes sets these variables in every pod if there is a Service called wholetrack, or wholetrack-something.
_OF_KUBERNETES = re.compile(r"(\w+_)?(service_(host|port(_\w+)?)|port_\d+_(tcp|udp|sctp)(_(proto|port|addr))?)")
# It also sets WHOLETRACK_PORT, to an address such as tcp://10.0.0.1:8000.
_ADDRESS = re.compile(r"\s*(tcp|udp|sctp)://")


def without_unset(source: EnvSettingsSource) -> EnvSettingsSource:
    """Return a source that does not have the variables that are blank or set by Kubernetes.

    Args:
        source: A source that reads environment variables or a ``.env`` file.
    """
    result = copy.copy(source)
    result.env_vars = {
        name: value
        for name, value in source.env_vars.items()
        if value and not value.isspace() and not _is_set_by_kubernetes(source, name, value)
    }
    return result


def blank_variables(source: EnvSettingsSource, fields: Iterable[str]) -> list[str]:
    """Return the names of those fields whose variables are set to a blank value."""
    variables = {field: source.env_vars.get(f"{source.env_prefix}{field}".lower()) for field in fields}
    return [field for field, value in variables.items() if value is not None and not value.strip()]


def check_names(prefix: str, variables: Iterable[str], fields: Iterable[str]) -> None:
    """Check that every variable with the prefix is known.

    Args:
        prefix: Prefix of the settings.
        variables: Names of variables in lower case.
        fields: Current and former names of settings.

    Raises:
        ValueError: If a name is unknown; the message has the most similar name that is known.
    """
    configurable = {*fields, *COMPOSE_VARIABLES}
    known = configurable | _OTHER_PROGRAMS
    start = prefix.lower()
    names = [name.removeprefix(start) for name in variables if name.startswith(start)]
    if unknown := [name for name in names if name not in known]:
        raise ValueError("; ".join(_complaint(prefix, name, configurable) for name in unknown))


def _complaint(prefix: str, unknown: str, known: Iterable[str]) -> str:
    (nearest,) = difflib.get_close_matches(unknown, sorted(known), n=1, cutoff=0.0)
    return f"{prefix}{unknown.upper()} is not a setting; the most similar name is {prefix}{nearest.upper()}"


def _is_set_by_kubernetes(source: EnvSettingsSource, variable: str, value: str) -> bool:
    prefix = source.env_prefix.lower()
    if not variable.startswith(prefix):
        return False
    name = variable.removeprefix(prefix)
    if name.endswith("port") and _ADDRESS.match(value):
        return True
    return _OF_KUBERNETES.fullmatch(name) is not None
