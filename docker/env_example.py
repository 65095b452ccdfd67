#!/usr/bin/env python3
"""Prints the file ``.env.example``: every variable of the Compose files and every setting of the service.

``python docker/env_example.py > .env.example``
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic.fields import FieldInfo

from wholetrack.settings import PREFIX, Settings

_HEAD = """\
# Copy this file to .env and take the # away from what you want to change: Compose and the service read it there.
# Written by `python docker/env_example.py`."""

# What the Compose files read: variable, value where there is none, meaning.
COMPOSE = (
    ("WHOLETRACK_PUBLISHED_PORT", "8000", "Port of this machine on which the service answers, or its proxy."),
    ("WHOLETRACK_PUBLISHED_GPU_PORT", "8001", "The same of the service on a GPU (--profile gpu)."),
    ("WHOLETRACK_GPU", "0", "Which GPU (--profile gpu), by its number or id; in the container it is device 0."),
    ("WHOLETRACK_CPUS", "0", "Processors that a container of the service may use; 0 for all."),
    ("WHOLETRACK_MEMORY", "4g", "Memory that a container of the service may use, uploads under way included."),
    ("WHOLETRACK_UPLOADS_SIZE", "2g", "Room for uploads under way, a part of that memory."),
    (
        "WHOLETRACK_STOP_GRACE_PERIOD",
        "45s",
        "When a container that was told to stop is killed; longer than WHOLETRACK_SHUTDOWN_TIMEOUT_S. The times of the "
        "proxy that must fit it and WHOLETRACK_REQUEST_TIMEOUT_S stand in docker/haproxy.cfg.",
    ),
    ("WHOLETRACK_MODELS", "models", "Folder of this machine with bundles to serve (-f docker/models.yml)."),
    (
        "WHOLETRACK_KEYS_FILE",
        "keys.toml",
        "File of API keys (-f docker/keys.yml); `wholetrack key NAME` makes them. User 10001 must be able to read it.",
    ),
    (
        "WHOLETRACK_METRICS_KEY_FILE",
        "/dev/null",
        "File that holds the key with which Prometheus asks for metrics; its user, nobody, must be able to read it.",
    ),
    ("WHOLETRACK_PROMETHEUS_PORT", "9090", "Port of this machine for Prometheus (--profile observe)."),
    ("WHOLETRACK_GRAFANA_PORT", "3000", "Port of this machine for Grafana (--profile observe)."),
)

_WIDTH = 118


def env_example() -> str:
    """The whole file."""
    blocks = [_HEAD, "# -- docker-compose.yml and docker/*.yml --"]
    blocks += [_block(variable, value, meaning) for variable, value, meaning in COMPOSE]
    blocks += ["# -- the service: what `wholetrack settings` lists --", *_settings()]
    return "\n\n".join(blocks) + "\n"


def _settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        yield _block(f"{PREFIX}{name.upper()}", _default(field), field.description or "")


def _default(field: FieldInfo) -> str:
    """The default as it is written in the file; nothing where it depends on the machine or there is none."""
    default = field.default
    if field.default_factory or default is None or isinstance(default, Path):
        return ""
    if isinstance(default, StrEnum):
        return default.value
    return json.dumps(default) if isinstance(default, bool | tuple) else f"{default}"


def _block(variable: str, value: str, meaning: str) -> str:
    words = textwrap.fill(meaning, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    return f"{words}\n# {variable}={value}"


if __name__ == "__main__":
    print(env_example(), end="")
