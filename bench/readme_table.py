"""Print the README's table of figures from the records in ``docs/bench``."""

from __future__ import annotations

import sys

from bench.generated import generator_parser
from bench.records import Record, read_record
from tests.harness.paths import PROJECT
from wholetrack_training.results.markdown import markdown_table

_BENCH, _MEMORY = "`make bench`", "`make bench-memory`"


def table() -> str:
    """Return the table, and the sentence that says where its figures were measured."""
    startup, track, probe, memory, models = map(read_record, ("startup", "track", "probe", "memory", "models"))
    cpu = {name: track[name]["cpu_s"]["median"] for name in ("service", "decode_alone", "session_alone")}
    wall_s = track["service"]["wall_s"]["median"]
    busy, short, long, many = probe["four_uploads"], memory["short"], memory["long"], memory["many"]
    minutes, short_minutes, long_hours = track["song_seconds"] // 60, short["seconds"] / 60, long["seconds"] / 3600
    rows = [
        ("start until ready", f"{startup['seconds_to_ready']['median']:.2f} s", _BENCH),
        (f"{minutes} minutes of mp3 over HTTP", f"{cpu['service']:.2f} s of CPU time, {wall_s:.2f} s elapsed", _BENCH),
        ("the same with ffmpeg alone", f"{cpu['decode_alone']:.2f} s of CPU time", _BENCH),
        ("the same with the network alone", f"{cpu['session_alone']:.2f} s of CPU time", _BENCH),
        ("CPU time of the service relative to these two", f"{track['cpu_ratio_to_floor']['median']:.2f}", _BENCH),
        (
            "health probe while four uploads are processed",
            f"{busy['median_ms']:.1f} ms, at most {busy['max_ms']:.0f} ms",
            _BENCH,
        ),
        (
            f"memory for {short_minutes:.0f} minutes and for {long_hours:.0f} hours",
            f"{short['peak_mib']:.0f} MiB and {long['peak_mib']:.0f} MiB",
            _MEMORY,
        ),
        (
            f"memory with {many['clients']} clients that send {many['seconds'] / 60:.0f} minutes each, with decoders",
            f"{many['peak_with_decoders_mib']:.0f} MiB",
            _MEMORY,
        ),
    ]
    conditions = f"{_conditions(track, startup, probe, memory)} {_model(track, models)}"
    return "\n".join([*markdown_table(("", "", "measured by"), rows), "", conditions])


def _conditions(*records: Record) -> str:
    machine = records[0]["machine"]
    dates = " and ".join(sorted({record["date"] for record in records}))
    return (
        f"Medians on {machine['cpus']} cores ({machine['processor']}), ffmpeg {machine['ffmpeg'].split('-')[0]}, "
        f"onnxruntime {machine['onnxruntime']} on the CPU, {dates}. "
        "The records with their spread are in [docs/bench](docs/bench)."
    )


def _model(track: Record, models: Record) -> str:
    default, _ = models["cpu_s"]
    if track["model"] == default:
        return "All with the default model."
    ratio = f"{models['ratio']['median']:.2f}"
    return (
        f"Measured when {track['model']} was the default; {default} takes {ratio} times the CPU time "
        "(`python -m bench.models`)."
    )


def main() -> None:
    """Print the table, or check that the README contains it."""
    options = generator_parser(__doc__).parse_args()
    if not options.check:
        print(table())
    elif table() not in (PROJECT / "README.md").read_text():
        sys.exit(f"README.md must contain the table that `python -m bench.readme_table` prints:\n{table()}")


if __name__ == "__main__":
    main()
