"""The figures of ``docs/performance.json``."""

from __future__ import annotations

from bench.canned_service import Stage
from bench.records import Record, has_record, read_record

_BENCHMARKS = (
    *("startup", "track", "session", "first_answer", "probe", "memory", "throughput", "fairness", "overload"),
    *("decoding", "peers", "ceiling", "models"),
)
# Needs a machine with many cores and a GPU.
_SCALING = "scaling"
_RAY = "ray_serve"
PINNED = ("scaling_on_1", "scaling_on_2")
"""Records of the service on the first cores only, by their number."""
THROUGHPUT_RATIOS = {
    "throughput_ratio_to_seed_way": "throughput_ratio_to_baseline_script",
    "throughput_ratio_to_seed_way_in_processes": "throughput_ratio_to_baseline_script_in_processes",
    "throughput_ratio_of_int8": "throughput_ratio_of_int8",
}
"""Names in ``performance.json``, which other programs rely on, and in the record."""


def read_records() -> dict[str, Record]:
    """Return the last record of every benchmark, by its name; those of ``bench.scaling`` only if there are any."""
    names = [*_BENCHMARKS, *filter(has_record, (_SCALING, _RAY, *PINNED))]
    return {name: read_record(name) for name in names}


def summarise(records: dict[str, Record]) -> Record:
    """Return the main figures with the number of measurements, and where they were measured."""
    ceiling = records["ceiling"]["replaced"][Stage.DECODER]
    memory, overload, throughput, peers = (records[name] for name in ("memory", "overload", "throughput", "peers"))
    return {
        "measured": {name: {key: record[key] for key in ("date", "machine")} for name, record in records.items()},
        "cpu_ratio_to_floor": records["track"]["cpu_ratio_to_floor"],
        "cpu_ratio_of_default_model": records["models"]["ratio"],
        "cpu_share_of_service": records["track"]["cpu_share_of_service"],
        **{name: throughput[name_in_record] for name, name_in_record in THROUGHPUT_RATIOS.items()},
        "throughput_ratio_to_peers": _of_peers(peers, "throughput_ratio"),
        "median_ratio_to_peers": _of_peers(peers, "median_ratio"),
        "p95_ratio_to_peers": _of_peers(peers, "p95_ratio"),
        "first_answer_s": records["first_answer"]["first_answer_s"],
        "fair_wait_ratio": records["fairness"]["fair_wait_ratio"],
        "memory_mb": {
            "clients_16": _megabytes(memory["many"]["peak_with_decoders_mib"]),
            "ten_hours_more_than_three_minutes": _megabytes(memory["difference_mib"]),
            "repeats": 1,
        },
        "network_cpu_s": records["track"]["session_alone"]["cpu_s"],
        "main_process_cpu_ms_per_track": ceiling["main_process_cpu_ms_per_track"],
        "ceiling_tracks_per_s": ceiling["tracks_per_second"],
        **({"scaling": _of_scaling(records[_SCALING])} if _SCALING in records else {}),
        "overload": {"seconds": overload["seconds"], "repeats": 1, "by_max_requests": overload["by_max_requests"]},
    }


def _of_scaling(scaling: Record) -> Record:
    """Return where it was measured, and the tracks per second by device and number of clients."""
    by_device = {
        device: {str(load["clients"]): load["tracks_per_second"] for load in loads}
        for device, loads in scaling["devices"].items()
    }
    return {
        "cores": scaling["cores"],
        "gpu": scaling["gpu"],
        "decoding_alone_tracks_per_s": scaling["decoding"]["tracks_per_second"],
        "tracks_per_s": by_device,
        "repeats": 1,
    }


def _of_peers(peers: Record, figure: str) -> Record:
    """Return a ratio to each framework by number of clients, always in its set-up with the higher throughput."""
    return {
        name: {
            clients: _better_setup(peer, clients)[figure][clients]
            for clients in peer["setups"]["workers"]["throughput_ratio"]
        }
        for name, peer in peers["peers"].items()
    }


def _better_setup(peer: Record, clients: str) -> Record:
    setups: list[Record] = list(peer["setups"].values())
    return min(setups, key=lambda setup: setup["throughput_ratio"][clients]["median"])


def _megabytes(mebibytes: float) -> float:
    return round(mebibytes * 1.048576, 1)
