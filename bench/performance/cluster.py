"""The section of ``docs/PERFORMANCE.md`` about the service on Ray."""

from __future__ import annotations

from collections.abc import Iterable

from bench.markdown import median_and_range, paragraph
from bench.records import Record
from wholetrack_training.results.markdown import markdown_table

_TARGET = 0.9


def ray_section(record: Record) -> Iterable[str]:
    """Yield the section that compares clusters on one machine with the service alone."""
    alone, cores = record["alone"], record["cores"]
    yield from ("", "## On a Ray cluster")
    yield from paragraph(
        f"`make bench-ray` on {record['date']}: clusters on one machine with {cores} cores, in turn with the service "
        f"alone, for {record['song_seconds']} s of mp3. The nodes share the cores, so that more of them show what "
        f"distribution costs, not how throughput grows. The target for one node is {_TARGET:.0%} of the throughput of "
        "the service alone."
    )
    rows = [["the service alone", *_figures(alone)]]
    rows += [
        [f"{nodes} node{'s' if nodes != '1' else ''}", *_figures(found)] for nodes, found in record["nodes"].items()
    ]
    yield ""
    yield from markdown_table(
        ("", "throughput, 4 clients", "median latency, 1 client", "median latency, 4 clients", "busy cores when idle"),
        rows,
    )
    yield from paragraph("CPU time per track with 4 clients, by processes, in seconds:")
    services = {"the service alone": alone} | {f"{nodes} nodes": found for nodes, found in record["nodes"].items()}
    groups = sorted({group for found in services.values() for group in found["cpu_s_per_track"]})
    yield ""
    yield from markdown_table(
        ("", *groups, "all"),
        [
            [
                name.replace("1 nodes", "1 node"),
                *(f"{found['cpu_s_per_track'].get(group, 0.0):.2f}" for group in groups),
                f"{sum(found['cpu_s_per_track'].values()):.2f}",
            ]
            for name, found in services.items()
        ],
    )


def _figures(found: Record) -> list[str]:
    latencies = found["median_latency_ratio"]
    return [
        median_and_range(found["throughput_ratio"]),
        median_and_range(latencies["1"]),
        median_and_range(latencies["4"]),
        f"{found['idle_cpus']:.2f}",
    ]
