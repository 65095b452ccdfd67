"""``docs/RELIABILITY.md`` from what `make fuzz`, `make chaos` and `make soak` recorded last, and the limits.

``python -m bench.reliability``
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.markdown import paragraph
from tests.harness.report import RECORDED
from wholetrack.settings import PREFIX, Settings
from wholetrack_training.results.markdown import markdown_table

DOCS = RECORDED.parent
RELIABILITY = DOCS / "reliability"
Record = dict[str, Any]

# What a limit is about, the setting that moves it, and the tests that try it.
_CONNECTIONS, _UPLOAD = "tests/e2e/test_connections.py", "tests/wholetrack/api/test_upload.py"
_PIPELINE = "tests/wholetrack/test_pipeline.py"
_BAD, _EXTREME = "tests/e2e/test_bad_input.py", "tests/e2e/test_extremes.py"
_LIMITS = (
    ("bytes of an upload", "max_upload_bytes", 413, _BAD),
    ("seconds of decoded sound, whatever a header states", "max_duration_s", 413, _EXTREME),
    ("windows of a recording, or beliefs of a model that states several for each", "max_windows", 413, _PIPELINE),
    ("bytes of a request's head, a trailer, a chunk's extension", "max_header_bytes", 431, _CONNECTIONS),
    (
        "seconds for a head; without taking an answer; before an upload's rate counts",
        "client_timeout_s",
        408,
        _CONNECTIONS,
    ),
    ("least bytes of an upload a second", "min_upload_bytes_per_s", 408, _UPLOAD),
    ("connections", "max_connections", 429, _CONNECTIONS),
    ("predictions admitted", "max_requests", 429, _BAD),
    ("seconds of a request", "request_timeout_s", 504, _BAD),
)


def records() -> dict[str, Record]:
    """What was recorded last, by name; only what was."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RELIABILITY.glob("*.json"))}
    return {name: found[name] for name in ("chaos", "fuzz", "soak") if name in found}


def page(found: Mapping[str, Record]) -> str:
    """``RELIABILITY.md``."""
    parts = {"chaos": _chaos, "fuzz": _fuzz, "soak": _soak}
    lines = [
        "# Reliability",
        *paragraph(
            "Written by `make reliability` from the records in [reliability](reliability). CI runs a short form of "
            "each: seconds of every fault, some hundred damaged files, a quarter of a minute of mixed traffic. "
            "[SECURITY.md](../SECURITY.md) says what is defended against what."
        ),
        *(line for name, record in found.items() for line in parts[name](record)),
        "",
        "## Limits",
        *paragraph("Each is found while it is passed, not after."),
        "",
        *markdown_table(("limit", "setting", "default", "answer", "tried by"), _limits()),
        *paragraph(
            "Besides, of every upload one part and 8 headers; of every decoder 1 GiB of memory, a bounded time of the "
            "processor, 32 descriptors and no byte written (`tests/wholetrack/audio/test_sandbox.py`); and files whose "
            f"rates, channels, streams, tags and depths are extreme are answered by the table (`{_EXTREME}`)."
        ),
    ]
    return "\n".join(lines) + "\n"


def _complaints(wrong: Sequence[str]) -> list[str]:
    return paragraph(f"What was not as it must be: {'; '.join(wrong) or 'nothing'}.")


def _chaos(record: Record) -> Iterable[str]:
    faults: Record = record["faults"]
    seconds = max(survived["seconds"] for survived in faults.values())
    yield from ("", "## Parts that die")
    yield from paragraph(
        f"`make chaos`, {record['date']}: {record['clients']} clients ask without pause while parts die, for "
        f"{seconds:g} s each. Every answer must be right or an error of the table, no request may hang, nothing may be "
        "left behind, and the service must be ready again by itself."
    )
    yield ""
    yield from markdown_table(
        ("fault", "times", "answered", "told otherwise", "cut or refused", "restarts", "slowest", "right again after"),
        [
            [
                name,
                f"{survived['hits']:,}" if survived["hits"] else "lasting",
                f"{survived['outcomes'].get('ok', 0):,}",
                _told(survived["outcomes"]),
                f"{sum(survived['outcomes'].get(code, 0) for code in ('cut', 'refused')):,}",
                str(survived["restarts"]),
                f"{survived['slowest_s']:.1f} s",
                f"{survived['ready_again_s']:.1f} s",
            ]
            for name, survived in faults.items()
        ],
    )
    yield from _complaints([f"{name}: {what}" for name, survived in faults.items() for what in survived["wrong"]])


def _told(outcomes: Mapping[str, int]) -> str:
    errors = {code: n for code, n in outcomes.items() if code not in ("ok", "cut", "refused", "left", "dawdled")}
    return ", ".join(f"{n:,} `{code}`" for code, n in errors.items())


def _fuzz(record: Record) -> Iterable[str]:
    yield from ("", "## Damaged files")
    yield from paragraph(
        f"`make fuzz`, {record['date']}: {record['files']:,} files made of {record['origins']} whole ones of every "
        "container, by flipped bits, cuts, splices, numbers at their extremes, and ffmpeg's own words in tags. Each is "
        f"made again from the seed {record['seed']} and its number."
    )
    yield ""
    rows = [*sorted(record["statuses"].items()), *sorted(record["codes"].items(), key=lambda pair: -pair[1])]
    yield from markdown_table(("answer", "files"), [[f"`{answer}`", f"{n:,}"] for answer, n in rows])
    yield from paragraph(
        f"The slowest answer took {record['slowest_s']:.1f} s. Memory at rest was "
        f"{record['memory_first_quarter_mib']:.0f} MiB after a quarter and {record['memory_end_mib']:.0f} after all."
    )
    yield from _complaints([violation["what"] for violation in record["violations"]])


def _soak(record: Record) -> Iterable[str]:
    start, quarter, half, end = record["memory_mib"]
    told = ", ".join(f"{n:,} `{code}`" for code, n in record["outcomes"].items())
    before, after = record["descriptors"]
    yield from ("", "## Mixed traffic for long")
    yield from paragraph(
        f"`make soak`, {record['date']}: {record['minutes']:g} minutes of good, bad, huge, slow and aborted requests "
        f"({told}). Memory was {start:.0f} MiB at the start, {quarter:.0f} after a quarter, {half:.0f} at half and "
        f"{end:.0f} at the end; over the second half it grew by {record['growth_mib']:g} MiB, with a standard error of "
        f"{record['growth_error_mib']:g}. Descriptors: {before} before, {after} after."
    )
    yield from _complaints(record["wrong"])


def _limits() -> Iterable[list[str]]:
    settings = Settings.model_construct()
    for what, name, status, tests in _LIMITS:
        yield [what, f"`{PREFIX}{name.upper()}`", f"{getattr(settings, name):,.0f}", str(status), f"`{tests}`"]


def main() -> None:
    """Write the page."""
    (DOCS / "RELIABILITY.md").write_text(page(records()))


if __name__ == "__main__":
    main()
