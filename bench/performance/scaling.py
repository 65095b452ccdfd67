"""The sections of ``docs/PERFORMANCE.md`` about the process of the service and about machines with many cores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.canned_service import Stage
from bench.markdown import median_and_range, paragraph
from bench.records import Record
from wholetrack_training.results.markdown import markdown_table

_TARGET_MS, _TARGET_RATE = 15, 60
_REPLACED = {
    Stage.NOTHING: "nothing",
    Stage.NETWORK: "the network",
    Stage.FEATURES: "network and features",
    Stage.DECODER: "network, features and ffmpeg, by a program that writes samples to the pipe",
    Stage.DECODING: "network, features and all of decoding, by windows in memory",
}
_DEVICES = {"cpu": "CPU", "cuda": "CUDA"}
# Since this date, features have been computed in processes of their own.
_FEATURE_WORKERS = "2026-11-28"


def process_section(ceiling: Record) -> Iterable[str]:
    """Yield the section about the CPU time of the service's own process."""
    yield from ("", "## The process of the service")
    yield from paragraph(
        "One Python process receives, schedules, batches and responds, and runs the network. Its "
        "interpreter lock limits how many tracks per second a machine with many cores can process. `python -m "
        "bench.ceiling` replaces stages by canned ones that cost next to nothing, one after the other, to show what "
        f"each of them costs this process. {ceiling['clients']} clients on the same machine post the song as the raw "
        f"body, one request after another. Measured on {ceiling['date']} on {ceiling['cores']} cores "
        f"({ceiling['machine']['processor']}), where ffmpeg alone took "
        f"{median_and_range(ceiling['ffmpeg_cpu_ms'], ' ms')} of CPU time for the song: if that is more than in the "
        "table above, the machine was busy, and the ratio to ffmpeg says more than the times. The target applies to "
        "the work that has to stay in this process."
    )
    yield ""
    yield from markdown_table(
        ("replaced", "CPU time of the process per track", "relative to ffmpeg", "tracks per second"),
        [
            *(
                [
                    title,
                    median_and_range(ceiling["replaced"][stage]["main_process_cpu_ms_per_track"], " ms"),
                    median_and_range(ceiling["replaced"][stage]["cpu_ratio_to_ffmpeg"]),
                    median_and_range(ceiling["replaced"][stage]["tracks_per_second"]),
                ]
                for stage, title in _REPLACED.items()
            ),
            ["target", f"{_TARGET_MS} ms", "", f"{_TARGET_RATE}"],
        ],
    )


def scaling_section(scaling: Record, ceiling: Record) -> Iterable[str]:
    """Yield the section about the throughput of a machine with many cores."""
    cores, decoding, gpu = scaling["cores"], scaling["decoding"], scaling["gpu"]
    single = scaling["devices"]["cpu"][0]
    yield from ("", "## Scaling")
    yield from paragraph(
        f"`make bench-scaling` on {scaling['date']}: {cores} cores ({scaling['machine']['processor']})"
        f"{f', {gpu}' if gpu else ''}, onnxruntime {scaling['machine']['onnxruntime']}. Clients on the same machine, "
        f"each a process of its own, post {scaling['song_seconds']} s of mp3 as the raw body, one request after "
        f"another. A track takes {single['cpu_s_per_track']:.2f} s of CPU time with one client on the CPU, so that "
        f"{cores} whole cores could process {cores / single['cpu_s_per_track']:.1f} tracks per second. Decoding alone "
        f"takes {decoding['cpu_s_alone']:.2f} s, which would allow {cores / decoding['cpu_s_alone']:.1f}; with one "
        f"ffmpeg process on each core at the same time, {decoding['cpu_s_on_all_cores']:.2f} s and "
        f"{decoding['tracks_per_second']:.1f} tracks per second were measured. The targets are 80 % of the first "
        "figure on the CPU and 80 % of decoding alone with CUDA."
        + "".join(f" {remark}" for remark in scaling.get("remarks", ()))
    )
    yield ""
    yield from markdown_table(
        (
            *("device", "clients", "tracks per second", "median latency", "busy cores", "CPU time per track"),
            *("of which the service's process", "GPU busy"),
        ),
        [
            [
                _DEVICES[device],
                str(load["clients"]),
                f"{load['tracks_per_second']:.2f}",
                f"{load['median_s']:.2f} s",
                f"{load['busy_cores']:.1f}",
                f"{load['cpu_s_per_track']:.2f} s",
                f"{load['main_process_cpu_ms_per_track']:.0f} ms",
                f"{100 * load['gpu_share']:.0f} %" if "gpu_share" in load else "",
            ]
            for device, loads in scaling["devices"].items()
            for load in loads
        ],
    )
    if scaling["date"] < _FEATURE_WORKERS:
        yield from _estimate(scaling, ceiling)


def _estimate(scaling: Record, ceiling: Record) -> Iterable[str]:
    """Yield what is to be expected of a machine on which the service was measured before a change."""
    ratio = ceiling["replaced"][Stage.DECODER]["cpu_ratio_to_ffmpeg"]["median"]
    own_s = ratio * scaling["decoding"]["cpu_s_alone"]
    cores, cpu_s = scaling["cores"], scaling["devices"]["cpu"][0]["cpu_s_per_track"]
    yield from paragraph(
        "These figures are older than the processes that compute the features; until then, the process of the service "
        f"did that as well, and was what limited the rate. Since then, it needs {ratio:.2f} of ffmpeg's CPU time for a "
        f"track besides the network ([see above](#the-process-of-the-service)), which is {1000 * own_s:.0f} ms on that "
        f"machine, and so {1 / own_s:.0f} tracks per second at most. Its {cores} cores can process "
        f"{cores / cpu_s:.1f} tracks per second without a GPU, and decode "
        f"{cores / scaling['decoding']['cpu_s_alone']:.1f}. This is an estimate: the new layout has not been measured "
        "on such a machine."
    )


def few_cores_section(records: Sequence[Record]) -> Iterable[str]:
    """Yield the section about the service on one and two cores."""
    if not records:
        return
    yield from ("", "## One and two cores")
    commands = " and ".join(f"`python -m bench.scaling --cores {record['cores']} --record`" for record in records)
    yield from paragraph(
        f"{commands} on {records[0]['date']} ({records[0]['machine']['processor']}), with the clients on the same "
        "cores."
    )
    yield ""
    yield from markdown_table(
        (
            "cores",
            "clients",
            "tracks per second",
            "CPU time per track",
            "of which the service's process",
            "ffmpeg alone",
        ),
        [
            [
                str(record["cores"]),
                str(load["clients"]),
                f"{load['tracks_per_second']:.2f}",
                f"{load['cpu_s_per_track']:.2f} s",
                f"{load['main_process_cpu_ms_per_track']:.0f} ms",
                f"{record['decoding']['cpu_s_alone']:.2f} s",
            ]
            for record in records
            for load in record["devices"]["cpu"]
        ],
    )
