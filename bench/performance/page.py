"""``docs/PERFORMANCE.md``."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from bench.markdown import median_and_range, paragraph
from bench.peers import NAMES
from bench.performance.cluster import ray_section
from bench.performance.cuda import cuda_section
from bench.performance.scaling import few_cores_section, process_section, scaling_section
from bench.performance.summary import PINNED, THROUGHPUT_RATIOS
from bench.records import Record
from wholetrack_training.results.markdown import markdown_table

CPU_PICTURE = "pictures/performance-cpu.svg"
PEERS_PICTURE = "pictures/performance-peers.svg"


def page(records: dict[str, Record], summary: Record) -> str:
    """Return the page.

    Args:
        records: Records of all benchmarks by name.
        summary: The figures of ``docs/performance.json``.
    """
    lines = [
        "# Performance",
        *_introduction(records["track"]),
        *_cost_of_a_track(records["track"]),
        *_cost_of_the_default_model(records["models"]),
        *_decoding(records["decoding"]),
        *_batches(records["session"]),
        *_throughput(records["throughput"], records["track"], summary),
        *_frameworks(summary),
        *_fairness_and_memory(records, summary),
        *_overload(records["overload"]),
        *process_section(records["ceiling"]),
        *cuda_section(),
        *(scaling_section(records["scaling"], records["ceiling"]) if "scaling" in records else ()),
        *(ray_section(records["ray_serve"]) if "ray_serve" in records else ()),
        *few_cores_section([records[name] for name in PINNED if name in records]),
    ]
    return "\n".join(lines) + "\n"


def shares_of_cpu(shares: Record) -> Iterable[tuple[str, int]]:
    """Yield every part of the service with its share of the CPU time, in percent."""
    names = {"decode_alone": "ffmpeg", "session_alone": "network", "features_alone": "features"}
    for part, title in names.items():
        yield title, round(100 * shares[part]["median"])
    rest = 1 - sum(shares[part]["median"] for part in names)
    yield "everything else (HTTP, JSON, pipes, Python)", round(100 * rest)


def _introduction(track: Record) -> Iterable[str]:
    machine = track["machine"]
    yield from paragraph(
        "`python -m bench.performance` generates this page from the records in [bench](bench), which `make bench`, "
        "`make bench-memory`, `make bench-peers` and `make bench-scaling` write. [performance.json](performance.json) "
        "has the same figures in machine-readable form. Ratios compare runs that alternated on one machine; they are "
        "given as median (minimum to maximum, number of runs)."
    )
    yield from paragraph(
        f"Measured on {track['date']} on {machine['cpus']} cores ({machine['processor']}), with ffmpeg "
        f"{machine['ffmpeg'].split('-')[0]}, onnxruntime {machine['onnxruntime']} on the CPU and Python "
        f"{machine['python']}, when {track['model']} was the default model. The song is "
        f"{track['song_seconds']} s of mp3 at 192 kb/s."
    )


def _cost_of_the_default_model(models: Record) -> Iterable[str]:
    default, other = models["cpu_s"]
    yield from paragraph(
        f"{default}, the default model, takes {median_and_range(models['ratio'])} times the CPU time of {other} for "
        f"the whole request (`python -m bench.models` on {models['date']}). The target is 1.6."
    )


def _cost_of_a_track(track: Record) -> Iterable[str]:
    yield from ("", "## Cost of a track")
    yield from paragraph(
        "CPU time of a request over HTTP, relative to ffmpeg alone plus the network alone: "
        f"{median_and_range(track['cpu_ratio_to_floor'])}. The target is 1.25."
    )
    yield ""
    yield from markdown_table(
        ("part", "share of the service's CPU time"),
        [[title, f"{share} %"] for title, share in shares_of_cpu(track["cpu_share_of_service"])],
    )
    yield from ("", f"![Shares of the CPU time]({CPU_PICTURE})")


def _decoding(decoding: Record) -> Iterable[str]:
    yield from ("", "## Decoding")
    yield from paragraph(
        "CPU seconds to decode one file. The service runs one ffmpeg process per file and schedules it as a batch job "
        "on one CPU. It is compared with the same command under the default scheduling of the kernel, and with PyAV, "
        "which uses ffmpeg's libraries in one thread of a process that is already running, and ffmpeg's own resampler "
        "instead of soxr. The service uses a separate process because a process that handles a single file cannot be "
        "affected by other files."
    )
    yield ""
    times = ("service_scheduling_cpu_s", "default_scheduling_cpu_s", "pyav_cpu_s")
    ratios = ("ratio_to_default_scheduling", "ratio_to_pyav")
    yield from markdown_table(
        ("format", "service", "default scheduling", "PyAV", "service / default scheduling", "service / PyAV"),
        [
            [
                name,
                *(f"{costs[time]['median']:.2f}" for time in times),
                *(median_and_range(costs[ratio]) for ratio in ratios),
            ]
            for name, costs in decoding["formats"].items()
        ],
    )


def _batches(session: Record) -> Iterable[str]:
    costs = session["cpu_ms_per_window"]["wholetrack-crnn-gtzan"]
    yield from ("", "## Batches")
    yield from paragraph(
        "CPU milliseconds per window of wholetrack-crnn-gtzan in one thread, by batch size, in float32 and in int8 "
        "(`WHOLETRACK_CPU_PRECISION`). Its card states how int8 affects accuracy. wholetrack-crnn has no int8 network."
    )
    yield ""
    yield from markdown_table(
        ["windows per batch", *costs["float32"]],
        [[name, *(f"{cost['median']:.2f}" for cost in by_size.values())] for name, by_size in costs.items()],
    )


def _throughput(throughput: Record, track: Record, summary: Record) -> Iterable[str]:
    yield from ("", "## Throughput compared with a baseline script")
    yield from paragraph(
        "The baseline script works like the code of the published systems: librosa decodes the recording and computes "
        "every window separately, and the network is called once per track. It uses the same network as the service. "
        "It is measured as a script that processes one recording after another, which is how its authors run it (the "
        "target is 6 times its throughput), and, as a harder comparison, in as many processes as there are cores. The "
        "last column compares int8 with float32 in the service. Decoding and classification alone, on all cores with "
        f"nothing else to do, would be {_upper_bound(throughput, track):.1f} times as fast as the script."
    )
    yield ""
    yield from markdown_table(
        ("clients", "tracks per second", "relative to the script", "relative to the processes", "int8 / float32"),
        [
            [n, f"{_rate(throughput, i):.2f}", *(median_and_range(summary[name][n]) for name in THROUGHPUT_RATIOS)]
            for i, n in enumerate(summary["throughput_ratio_of_int8"])
        ],
    )


def _upper_bound(throughput: Record, track: Record) -> float:
    """Return the throughput of all cores that only decode and classify, relative to the baseline script."""
    floor_s = sum(track[part]["cpu_s"]["median"] for part in ("decode_alone", "session_alone"))
    script = median(load["tracks_per_second"] for load in throughput["baseline_script"])
    return float(track["machine"]["cpus"] / floor_s / script)


def _rate(throughput: Record, i: int) -> float:
    """Return the median throughput of the service with the i-th number of clients, in tracks per second."""
    rates: list[float] = sorted(loads[i]["tracks_per_second"] for loads in throughput["service"])
    return rates[len(rates) // 2]


def _frameworks(summary: Record) -> Iterable[str]:
    yield from ("", "## Compared with serving frameworks")
    yield from paragraph(
        "Each framework runs the same decoding, features and network, in the two configurations that its "
        "documentation recommends: batches of tracks for a network that uses all cores, and workers with one core "
        "each. [bench/peers](../bench/peers) has one short file per framework. The columns are the figures of the "
        "service divided by those of the framework in the configuration with the higher throughput. With many clients "
        "waiting at the same time, a lower median at a lower throughput means that some clients wait longer, which "
        "the last column shows."
    )
    ratios = ("throughput_ratio_to_peers", "median_ratio_to_peers", "p95_ratio_to_peers")
    yield ""
    yield from markdown_table(
        ("framework", "clients", "throughput", "median latency", "95th percentile of the latency"),
        [
            [NAMES[name], clients, *(median_and_range(summary[ratio][name][clients]) for ratio in ratios)]
            for name, by_clients in summary["throughput_ratio_to_peers"].items()
            for clients in by_clients
        ],
    )
    yield from ("", f"![Throughput relative to the frameworks]({PEERS_PICTURE})")


def _fairness_and_memory(records: dict[str, Record], summary: Record) -> Iterable[str]:
    many, memory_mb = records["memory"]["many"], summary["memory_mb"]
    yield from ("", "## Fairness and memory", "")
    yield from markdown_table(
        ("", "measured", "target"),
        [
            [
                "latency of a 3-minute song during a 2-hour mix, relative to its latency alongside another song",
                median_and_range(summary["fair_wait_ratio"]),
                "1.5",
            ],
            *(
                [f"time to the first result of the network for {length} of mp3", median_and_range(wait, " s"), "0.4 s"]
                for length, wait in summary["first_answer_s"].items()
            ),
            [
                f"memory with {many['clients']} clients that send {many['seconds'] / 60:.0f} minutes each, including "
                "decoders",
                f"{memory_mb['clients_16']:.0f} MB",
                "600 MB",
            ],
            [
                "additional memory for a 10-hour recording compared with a 3-minute one",
                f"{memory_mb['ten_hours_more_than_three_minutes']:.0f} MB",
                "64 MB",
            ],
        ],
    )


def _overload(overload: Record) -> Iterable[str]:
    yield from ("", "## Overload")
    yield from paragraph(
        f"Clips of {overload['clip_seconds']} s are sent at four times capacity for {overload['seconds']:.0f} s, with "
        "different limits on the number of admitted requests (`WHOLETRACK_MAX_REQUESTS`). The last limit is the "
        "default; capacity and the latency of a single client are measured with it."
    )
    yield ""
    yield from markdown_table(
        (
            "limit",
            "accepted, relative to capacity",
            "95th percentile of the latency, relative to a single client",
            "95th percentile of the time to a 429",
        ),
        [
            *(
                [
                    limit,
                    f"{figures['accepted_share_of_capacity']:.2f}",
                    f"{figures['p95_ratio_to_unloaded']:.2f}",
                    f"{figures['refused_p95_ms']:.0f} ms",
                ]
                for limit, figures in overload["by_max_requests"].items()
            ),
            ["target", "0.9", "2", "50 ms"],
        ],
    )
