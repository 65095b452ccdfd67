"""``docs/performance.json`` and ``docs/PERFORMANCE.md`` with its pictures, from what benchmarks left behind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from bench.peers import NAMES
from tests.harness.report import RECORDED
from wholetrack_training.results.markdown import markdown_table
from wholetrack_training.results.plots import save, style

DOCS = RECORDED.parent
_PICTURES = "pictures"
_BENCHMARKS = (
    *("startup", "track", "session", "first_answer", "probe", "memory", "throughput", "fairness", "overload"),
    *("decoding", "peers"),
)
_THROUGHPUT_RATIOS = tuple(
    f"throughput_ratio_{name}" for name in ("to_seed_way", "to_seed_way_in_processes", "of_int8")
)
Record = dict[str, Any]


def records() -> dict[str, Record]:
    """What every benchmark recorded last, by its name."""
    return {name: json.loads((RECORDED / f"{name}.json").read_text()) for name in _BENCHMARKS}


def summary(found: dict[str, Record]) -> Record:
    """The figures by which the engine is judged, each with its repeats, and where they were measured."""
    memory, overload = found["memory"], found["overload"]
    return {
        "measured": {name: {key: record[key] for key in ("date", "machine")} for name, record in found.items()},
        "cpu_ratio_to_floor": found["track"]["cpu_ratio_to_floor"],
        "cpu_share_of_service": found["track"]["cpu_share_of_service"],
        **{name: found["throughput"][name] for name in _THROUGHPUT_RATIOS},
        "throughput_ratio_to_peers": _of_peers(found["peers"], "throughput_ratio"),
        "median_ratio_to_peers": _of_peers(found["peers"], "median_ratio"),
        "p95_ratio_to_peers": _of_peers(found["peers"], "p95_ratio"),
        "first_answer_s": found["first_answer"]["first_answer_s"],
        "fair_wait_ratio": found["fairness"]["fair_wait_ratio"],
        "memory_mb": {
            "clients_16": _megabytes(memory["many"]["peak_with_decoders_mib"]),
            "ten_hours_more_than_three_minutes": _megabytes(memory["difference_mib"]),
            "repeats": 1,
        },
        "overload": {"seconds": overload["seconds"], "repeats": 1, "by_max_requests": overload["by_places"]},
    }


def page(found: dict[str, Record]) -> str:
    """``PERFORMANCE.md``."""
    track, overload, figures = found["track"], found["overload"], summary(found)
    machine = track["machine"]
    lines = [
        "# Performance",
        "",
        "Written by `python -m bench.performance` from the records in [bench](bench), which `make bench`,",
        "`make bench-memory` and `make bench-peers` leave there; the same figures for programs are in",
        "[performance.json](performance.json). Ratios compare what ran by turns on one machine: median (smallest to",
        "largest, number of repeats).",
        "",
        f"{machine['cpus']} cores ({machine['processor']}), ffmpeg {machine['ffmpeg'].split('-')[0]}, onnxruntime "
        f"{machine['onnxruntime']} on the CPU, Python {machine['python']}, {track['date']}. The song: "
        f"{track['song_seconds']} s of mp3 at 192 kb/s.",
        "",
        "## The cost of a track",
        "",
        f"CPU through HTTP over ffmpeg alone plus the network alone: {_spread(track['cpu_ratio_to_floor'])}; "
        "the bar is 1.25.",
        "",
        *markdown_table(("part", "share of the service's CPU"), _shares(track["cpu_share_of_service"])),
        "",
        f"![shares]({_PICTURES}/performance-cpu.svg)",
        "",
        "## Decoding",
        "",
        "CPU seconds of one file: ffmpeg as the service runs it (a process per file, a batch job on one processor),",
        "the same as the kernel would run it, and PyAV, ffmpeg's libraries in one thread of a process that is there",
        "already, whose resampler is ffmpeg's own in place of soxr. The service keeps the command: a process that",
        "belongs to one file can be hurt by no other.",
        "",
        *markdown_table(
            ("format", "as the service", "as the kernel", "PyAV", "service over kernel", "service over PyAV"),
            _decoding(found["decoding"]),
        ),
        "",
        "## Batches",
        "",
        "CPU milliseconds per window of the default model in one thread, by windows in a batch, in float32 and in",
        "int8 (`WHOLETRACK_CPU_PRECISION`; the model's card says what that costs in accuracy).",
        "",
        *markdown_table(*_batches(found["session"]["cpu_ms_per_window"]["wholetrack-crnn"])),
        "",
        "## Throughput beside the seeds' own way",
        "",
        "The seeds' way: librosa loads, computes every window by itself, one call of the same network per track. As a",
        "script, one recording after the other, which is how its authors run it, the bar being 6; and, harder, in as",
        "many processes as cores. In the last column the service beside itself. Decoding and the network alone, on all",
        f"cores and with nothing else to do, would be {_out_of_reach(track, found['throughput']):.1f} times ahead of "
        "the script.",
        "",
        *markdown_table(
            ("clients", "tracks a second", "times the script", "times as many processes as cores", "int8 over float32"),
            _throughput(found["throughput"], figures),
        ),
        "",
        "## Beside serving frameworks",
        "",
        "The same decoding, features and network in each, set up in two ways that its documentation recommends:",
        "batches of tracks for a network that has all cores, and workers with a core each.",
        "[bench/peers](../bench/peers) holds each, a file of a page. The service over each framework in the way that",
        "gives it more throughput. With so many clients who each wait, a lower median at a lower throughput means that",
        "some wait longer: the last column shows it.",
        "",
        *markdown_table(("framework", "clients", "throughput", "median time", "95th percentile"), _beside(figures)),
        "",
        f"![peers]({_PICTURES}/performance-peers.svg)",
        "",
        "## Fairness, memory",
        "",
        *markdown_table(("", "measured", "bar"), _bars(found, figures)),
        "",
        "## Overload",
        "",
        f"Four times capacity for {overload['seconds']:.0f} s, clips of {overload['clip_seconds']} s, by how many are "
        "admitted at a time",
        "(`WHOLETRACK_MAX_REQUESTS`; the last is the default, by which capacity and the unloaded time are measured).",
        "",
        *markdown_table(
            (
                "admitted",
                "accepted, of capacity",
                "95th percentile over that of one client",
                "429 within, 95th percentile",
            ),
            [*_overload(overload["by_places"]), ["bar", "0.9", "2", "50 ms"]],
        ),
        "",
    ]
    return "\n".join(lines)


def _of_peers(peers: Record, figure: str) -> Record:
    """The figure beside each framework in its better set-up, by number of clients."""
    return {
        name: {
            clients: _better(peer, clients)[figure][clients]
            for clients in peer["setups"]["workers"]["throughput_ratio"]
        }
        for name, peer in peers["peers"].items()
    }


def _better(peer: Record, clients: str) -> Record:
    better: Record = min(peer["setups"].values(), key=lambda setup: setup["throughput_ratio"][clients]["median"])
    return better


def _megabytes(mebibytes: float) -> float:
    return round(mebibytes * 1.048576, 1)


def _spread(figure: Record) -> str:
    if figure["repeats"] == 1:
        return f"{figure['median']:.2f} (once)"
    return f"{figure['median']:.2f} ({figure['min']:.2f} to {figure['max']:.2f}, {figure['repeats']} times)"


def _shares(shares: Record) -> Iterable[list[str]]:
    names = {"decode_alone": "ffmpeg", "session_alone": "network", "features_alone": "features"}
    for part, title in names.items():
        yield [title, f"{100 * shares[part]['median']:.0f} %"]
    rest = 1 - sum(shares[part]["median"] for part in names)
    yield ["HTTP, JSON, pipes, Python: what is left", f"{100 * rest:.0f} %"]


def _decoding(decoding: Record) -> Iterable[list[str]]:
    for name, costs in decoding["formats"].items():
        seconds = (f"{costs[kind]['median']:.2f}" for kind in ("settled_cpu_s", "unsettled_cpu_s", "pyav_cpu_s"))
        yield [name, *seconds, _spread(costs["ratio_to_unsettled"]), _spread(costs["ratio_to_pyav"])]


def _batches(costs: Record) -> tuple[list[str], list[list[str]]]:
    rows = [[name, *(f"{cost['median']:.2f}" for cost in by_size.values())] for name, by_size in costs.items()]
    return ["windows", *costs["float32"]], rows


def _out_of_reach(track: Record, throughput: Record) -> float:
    """How many times the tracks of the seeds' script all cores could do, had they but to decode and to classify."""
    floor_s = sum(track[part]["cpu_s"]["median"] for part in ("decode_alone", "session_alone"))
    script = median(turn["tracks_per_second"] for turn in throughput["seed_way"])
    return float(track["machine"]["cpus"] / floor_s / script)


def _throughput(throughput: Record, figures: Record) -> Iterable[list[str]]:
    for i, n in enumerate(figures[_THROUGHPUT_RATIOS[0]]):
        yield [n, _middle(throughput, i), *(_spread(figures[name][n]) for name in _THROUGHPUT_RATIOS)]


def _middle(throughput: Record, i: int) -> str:
    rates = sorted(round_[i]["tracks_per_second"] for round_ in throughput["service"])
    return f"{rates[len(rates) // 2]:.2f}"


def _beside(figures: Record) -> Iterable[list[str]]:
    for name, ratios in figures["throughput_ratio_to_peers"].items():
        for clients, ratio in ratios.items():
            times = (figures[f"{kind}_ratio_to_peers"][name][clients] for kind in ("median", "p95"))
            yield [NAMES[name], clients, _spread(ratio), *map(_spread, times)]


def _bars(found: dict[str, Record], figures: Record) -> Iterable[list[str]]:
    memory = found["memory"]
    yield ["a 3-minute song during a 2-hour mix, over beside one song", _spread(figures["fair_wait_ratio"]), "1.5"]
    for length, wait in found["first_answer"]["first_answer_s"].items():
        yield [f"the network's first answer about {length} of mp3", f"{_spread(wait)} s", "0.4 s"]
    many = memory["many"]
    yield [
        f"{many['clients']} clients with {many['seconds'] / 60:.0f} minutes each, decoders included",
        f"{figures['memory_mb']['clients_16']:.0f} MB",
        "600 MB",
    ]
    yield [
        "a 10-hour recording over a 3-minute one",
        f"{figures['memory_mb']['ten_hours_more_than_three_minutes']:.0f} MB",
        "64 MB",
    ]


def _overload(by_places: Record) -> Iterable[list[str]]:
    for places, figures in by_places.items():
        yield [
            places,
            f"{figures['accepted_share_of_capacity']:.2f}",
            f"{figures['p95_ratio_to_unloaded']:.2f}",
            f"{figures['refused_p95_ms']:.0f} ms",
        ]


def _draw_cpu(track: Record, path: Path) -> None:
    rows = [(title, float(share.removesuffix(" %"))) for title, share in _shares(track["cpu_share_of_service"])]
    with style():
        figure = Figure(figsize=(6, 1.2), layout="constrained")
        axes, left = figure.subplots(), 0.0
        for title, share in rows:
            axes.barh([0], [share], left=left, label=title.partition(":")[0])
            left += share
        axes.set_yticks([])
        axes.set_xlabel("% of the CPU that a track takes through HTTP")
        axes.legend(frameon=False, ncols=len(rows), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=7)
        save(figure, path)


def _draw_peers(peers: Record, path: Path) -> None:
    with style():
        figure = Figure(figsize=(6, 2.4), layout="constrained")
        axes = figure.subplots()
        for i, (name, by_clients) in enumerate(_of_peers(peers, "throughput_ratio").items()):
            ratios = by_clients.values()
            places = [j + 0.25 * (i - 1) for j in range(len(ratios))]
            middles = [ratio["median"] for ratio in ratios]
            below = [ratio["median"] - ratio["min"] for ratio in ratios]
            above = [ratio["max"] - ratio["median"] for ratio in ratios]
            axes.bar(places, middles, width=0.22, yerr=[below, above], capsize=2, label=NAMES[name])
            axes.set_xticks(range(len(ratios)), [f"{n} clients" for n in by_clients])
        axes.axhline(1, color="k", linewidth=0.8)
        axes.set_ylabel("service's throughput over it")
        axes.legend(frameon=False)
        save(figure, path)


def main() -> None:
    """Write the pages anew."""
    found = records()
    (DOCS / "performance.json").write_text(json.dumps(summary(found), indent=2) + "\n")
    (DOCS / "PERFORMANCE.md").write_text(page(found))
    _draw_cpu(found["track"], DOCS / _PICTURES / "performance-cpu.svg")
    _draw_peers(found["peers"], DOCS / _PICTURES / "performance-peers.svg")


if __name__ == "__main__":
    main()
