"""What all replicas do when they start: settings, logs, and work outside the event loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import ray
from ray import serve

from wholetrack.logs import configure_logs
from wholetrack.part_of_machine import for_part_of_machine
from wholetrack.settings import Settings

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


def start_replica() -> Settings:
    """Configure the logs of this process, and return the settings of this replica.

    They are those of the environment. Defaults that depend on the machine are for the CPUs that Ray has assigned to
    the replica, because a machine may have several.
    """
    settings = Settings()
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 0.0)
    settings = for_part_of_machine(settings, cpus=max(1, math.floor(assigned)))
    _log.info("%s starts with %g CPUs", replica_name(), assigned)
    return settings


def replica_name() -> str:
    """Return the name of this replica: its deployment, and an id."""
    identifier = serve.get_replica_context().replica_id
    return f"{identifier.deployment_id.name}-{identifier.unique_id}"


def node_id() -> str:
    """Return the id of the node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


def outside_event_loop(build: Callable[[], Result]) -> Result:
    """Return what ``build`` returns. Unlike the caller, it may wait for other replicas."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(build).result()
