"""Settings for one of several processes that share a machine."""

from __future__ import annotations

from wholetrack.memory_limit import memory_limit_bytes
from wholetrack.settings import Settings, available_cpus

_TRACKS_OPEN_PER_CPU = 16
# The rest of a process's part of the memory is for its models and its windows.
_SHARE_OF_DECODERS = 1 / 2


def for_part_of_machine(settings: Settings, *, cpus: int) -> Settings:
    """Return settings whose defaults are for a part of this machine.

    Args:
        settings: The settings. What is set explicitly does not change.
        cpus: CPUs of the part.
    """
    total = available_cpus()
    defaults: dict[str, object] = {
        "cpu_threads": cpus,
        "tracks_at_once": cpus,
        "tracks_open": _TRACKS_OPEN_PER_CPU * cpus,
    }
    if cpus < total:
        defaults |= {
            # Processes of the other parts may be pinned to the same CPUs.
            "pin_decoders": False,
            "decoder_memory_mb": int(memory_limit_bytes() * cpus / total * _SHARE_OF_DECODERS) >> 20,
        }
    unset = {name: value for name, value in defaults.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=unset)
