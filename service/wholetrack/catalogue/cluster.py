"""Which Ray cluster a run uses. This module does not import Ray, which only a run in a cluster needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster to use, and what of it.

    Attributes:
        address: Address of the cluster; None for the one in ``RAY_ADDRESS``, or else a cluster on this machine that
            ends with the run.
        actors: Number of actors; None for as many as there is room for.
        cpus_per_actor: CPUs of each actor; None for those of the smallest node, at most 8.
        gpus_per_actor: GPUs of each actor, or the part of one; with ``networks``, of each of these.
        networks: Number of further actors that run the network for the others. 0: each runs the network itself.
    """

    address: str | None = None
    actors: int | None = None
    cpus_per_actor: int | None = None
    gpus_per_actor: float = 0.0
    networks: int = 0
