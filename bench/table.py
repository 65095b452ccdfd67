"""The README's table of figures, from what the benchmarks recorded in ``docs/bench``."""

from __future__ import annotations

import json
from typing import Any

from tests.harness.report import RECORDED

_BENCH, _MEMORY = "`make bench`", "`make bench-memory`"


def table() -> str:
    """The table as Markdown, and where its figures were measured."""
    startup, track, probe, memory = map(_record, ("startup", "track", "probe", "memory"))
    cpu = {name: track[name]["cpu_s"]["median"] for name in ("service", "decode_alone", "session_alone")}
    wall_s = track["service"]["wall_s"]["median"]
    busy, short, long = probe["four_uploads"], memory["short"], memory["long"]
    many = memory["many"]
    minutes, short_min, long_h = track["song_seconds"] // 60, short["seconds"] / 60, long["seconds"] / 3600
    rows = [
        ("from start to ready", f"{startup['seconds_to_ready']['median']:.2f} s", _BENCH),
        (f"{minutes} minutes of mp3 through HTTP", f"{cpu['service']:.2f} s of CPU, {wall_s:.2f} s", _BENCH),
        ("the same by ffmpeg alone", f"{cpu['decode_alone']:.2f} s of CPU", _BENCH),
        ("the same by the network alone, windows ready", f"{cpu['session_alone']:.2f} s of CPU", _BENCH),
        ("the service's CPU over that of the two", f"{track['cpu_ratio_to_floor']['median']:.2f}", _BENCH),
        (
            "a health probe while four uploads are processed",
            f"{busy['median_ms']:.1f} ms, at most {busy['max_ms']:.0f} ms",
            _BENCH,
        ),
        (
            f"memory for {short_min:.0f} minutes and for {long_h:.0f} hours",
            f"{short['peak_mib']:.0f} MiB and {long['peak_mib']:.0f} MiB",
            _MEMORY,
        ),
        (
            f"memory while {many['clients']} clients ask at once with {many['seconds'] / 60:.0f} minutes each, "
            "decoders included",
            f"{many['peak_with_decoders_mib']:.0f} MiB",
            _MEMORY,
        ),
    ]
    lines = ["| | | measured by |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([*lines, "", _where(track)])


def _record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return record


def _where(report: dict[str, Any]) -> str:
    machine = report["machine"]
    return (
        f"Medians on {machine['cpus']} cores ({machine['processor']}), ffmpeg {machine['ffmpeg'].split('-')[0]}, "
        f"onnxruntime {machine['onnxruntime']} on the CPU, {report['date']}.\n"
        "The records with their spread are in [docs/bench](docs/bench)."
    )


if __name__ == "__main__":
    print(table())
