"""Write ``docs/RELIABILITY.md`` from the records of the chaos, fuzz and soak campaigns, and from the settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from bench.generated import check_files, generator_parser, write_files
from bench.markdown import paragraph
from bench.records import DOCS, Record
from tests.harness.records import RELIABILITY_RECORDS
from wholetrack.decoding.limits import DecoderMemory
from wholetrack.settings import PREFIX, Settings
from wholetrack_training.results.markdown import markdown_table

_BAD_INPUT, _EXTREMES = "tests/e2e/test_bad_input.py", "tests/e2e/test_extremes.py"
_MEMORY = "tests/e2e/test_memory.py"
_CONNECTIONS, _UPLOAD = "tests/e2e/test_connections.py", "tests/wholetrack/api/test_upload.py"
_PROTOCOL, _BUDGET = "tests/wholetrack/server/test_protocol.py", "tests/wholetrack/server/test_request_budget.py"
_PIPELINE, _SANDBOX = "tests/wholetrack/test_pipeline.py", "tests/wholetrack/sandbox/test_restrictions.py"
# What is limited, the setting, the status of the response beyond the limit, and the tests.
_LIMITS = (
    ("bytes of an upload", "max_upload_bytes", 413, _BAD_INPUT),
    ("seconds of decoded audio, whatever the file's header states", "max_duration_s", 413, _EXTREMES),
    ("windows of a recording, or steps if the model has several per window", "max_windows", 413, _PIPELINE),
    ("bytes of the request headers, of a trailer, or of a chunk extension", "max_header_bytes", 431, _CONNECTIONS),
    (
        "seconds until the headers are complete; before the rates of an upload and of reading a response are checked",
        "client_timeout_s",
        408,
        _CONNECTIONS,
    ),
    ("minimum upload rate in bytes per second", "min_upload_bytes_per_s", 408, _UPLOAD),
    ("minimum rate of reading a response in bytes per second", "min_response_bytes_per_s", None, _PROTOCOL),
    ("connections", "max_connections", 429, _CONNECTIONS),
    ("predictions admitted at the same time", "max_requests", 429, _BAD_INPUT),
    ("seconds that a prediction may be expected to wait for a processor", "max_wait_s", 429, _BAD_INPUT),
    ("seconds for a request", "request_timeout_s", 504, _BAD_INPUT),
)
_NO_RESPONSE = ("refused", "connection_lost")
# Outcomes that are not errors reported by the service.
_NO_ERRORS = ("ok", *_NO_RESPONSE, "disconnected", "slow_upload")


def read_records() -> dict[str, Record]:
    """Return the last record of every campaign that has been recorded, by name."""
    records = {path.stem: json.loads(path.read_text()) for path in RELIABILITY_RECORDS.glob("*.json")}
    return {name: records[name] for name in ("chaos", "fuzz", "soak", "attacks") if name in records}


def page(records: Mapping[str, Record]) -> str:
    """Return the page."""
    sections = {"chaos": _chaos, "fuzz": _fuzz, "soak": _soak, "attacks": _attacks}
    lines = [
        "# Reliability",
        *paragraph(
            "`make reliability` generates this page from the records in [reliability](reliability). CI runs a short "
            "form of every campaign: each fault for a few seconds, a few hundred damaged files, 15 seconds of mixed "
            "traffic, and each attack for a second. [SECURITY.md](../SECURITY.md) describes the threats and the "
            "defences."
        ),
        *(line for name, record in records.items() for line in sections[name](record)),
        *_limits(),
    ]
    return "\n".join(lines) + "\n"


def _chaos(record: Record) -> Iterable[str]:
    faults: Record = record["faults"]
    seconds = max(result["seconds"] for result in faults.values())
    yield from ("", "## Faults under load")
    yield from paragraph(
        f"`make chaos`, {record['date']}: {record['clients']} clients send requests continuously while parts of the "
        f"service fail, for {seconds:g} s per fault. Every response must be a correct prediction or a documented "
        "error, no request may hang, nothing may be left behind, and the service must recover by itself."
    )
    yield ""
    yield from markdown_table(
        ("fault", "injected", "predictions", "errors", "no response", "restarts", "slowest response", "recovery"),
        [
            [
                name,
                f"{result['injections']:,} times" if result["injections"] else "continuously",
                f"{result['outcomes'].get('ok', 0):,}",
                _errors(result["outcomes"]),
                f"{sum(result['outcomes'].get(outcome, 0) for outcome in _NO_RESPONSE):,}",
                str(result["restarts"]),
                f"{result['slowest_s']:.1f} s",
                f"{result['recovery_s']:.1f} s",
            ]
            for name, result in faults.items()
        ],
    )
    yield from paragraph(
        "*No response* counts connections that were refused or lost while the process was down. *Recovery* is the time "
        "from the end of the fault until the service is ready and predicts correctly."
    )
    yield from _problems([f"{name}: {problem}" for name, result in faults.items() for problem in result["problems"]])


def _errors(outcomes: Mapping[str, int]) -> str:
    return _counts({code: n for code, n in outcomes.items() if code not in _NO_ERRORS})


def _counts(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} `{code}`" for code, n in outcomes.items())


def _problems(problems: Sequence[str]) -> list[str]:
    return paragraph(f"Problems found: {'; '.join(problems) or 'none'}.")


def _fuzz(record: Record) -> Iterable[str]:
    yield from ("", "## Damaged files")
    yield from paragraph(
        f"`make fuzz`, {record['date']}: {record['files']:,} files derived from {record['origins']} valid files in all "
        "accepted containers, with flipped bits, truncation, splices, extreme numbers, and tags that imitate lines of "
        f"ffmpeg's log. Each can be reproduced from the seed {record['seed']} and its number."
    )
    yield ""
    rows = [*sorted(record["statuses"].items()), *sorted(record["codes"].items(), key=lambda pair: -pair[1])]
    yield from markdown_table(("status or error code", "files"), [[f"`{name}`", f"{n:,}"] for name, n in rows])
    yield from paragraph(
        f"The slowest response took {record['slowest_s']:.1f} s. The resident memory of the idle service was "
        f"{record['memory_first_quarter_mib']:.0f} MiB after a quarter of the files and "
        f"{record['memory_end_mib']:.0f} MiB after all of them."
    )
    yield from _problems([violation["problem"] for violation in record["violations"]])


def _soak(record: Record) -> Iterable[str]:
    start, quarter, half, end = record["memory_mib"]
    before, after = record["descriptors"]
    yield from ("", "## Long mixed traffic")
    yield from paragraph(
        f"`make soak`, {record['date']}: {record['minutes']:g} minutes of valid, invalid, very large, slow and aborted "
        f"requests ({_counts(record['outcomes'])}). Memory was {start:.0f} MiB at the start, {quarter:.0f} MiB after "
        f"a quarter of the time, {half:.0f} MiB after half of it and {end:.0f} MiB at the end. In the second half it "
        f"grew by {record['growth_mib']:g} MiB, with a standard error of {record['growth_error_mib']:g} MiB. There "
        f"were {before} open descriptors before and {after} after."
    )
    yield from _problems(record["problems"])


def _attacks(record: Record) -> Iterable[str]:
    attacks: Record = record["attacks"]
    yield from ("", "## Attacks on connections")
    yield from paragraph(
        f"`make attacks`, {record['date']}: clients attack the service in one way each, for {record['seconds']:g} s, "
        f"on a machine with {record['machine']['cpus']} CPUs that they share with it. About fifty times a second, "
        "`/healthz` is requested on a new connection. The ratio is that to the same latency without the attack."
    )
    yield ""
    yield from markdown_table(
        ("attack", "connections", "port", "200s of all probes", "median", "ratio", "worst", "ratio"),
        [
            [
                name,
                f"{result['connections']:,}",
                port.removesuffix("_port"),
                f"{result[port]['during']['ok']:,} of {result[port]['during']['probes']:,}",
                f"{result[port]['during']['median_ms']:.0f} ms",
                f"{result[port]['median_ratio']:g}",
                f"{result[port]['during']['worst_ms']:.0f} ms",
                f"{result[port]['worst_ratio']:g}",
            ]
            for name, result in attacks.items()
            for port in ("main_port", "probe_port")
            if port in result
        ],
    )
    yield from paragraph(
        "*Tiny chunks* sends bodies in chunks of one byte, *form lines* forms whose lines begin like the boundary, "
        "*costly headers* header fields and URLs that take long to process. *Silent connections* keeps opening "
        "connections without sending anything, and *slow readers* reads large responses a few bytes at a time."
    )
    if "tiny messages" in attacks:
        yield from paragraph(
            "Over WebSockets, *tiny messages* sends audio in messages of one sample, *silent WebSockets* nothing, "
            "and *ignored events* sends audio as fast as the service takes it and reads nothing."
        )


def _limits() -> Iterable[str]:
    settings = Settings.model_construct()
    yield from ("", "## Limits")
    yield from paragraph("Every limit is checked while the data arrives, not afterwards.")
    yield ""
    yield from markdown_table(
        ("limit", "setting", "default", "status", "tested by"),
        [
            [what, f"`{PREFIX}{name.upper()}`", f"{getattr(settings, name):,.0f}", str(status or "none"), f"`{tests}`"]
            for what, name, status, tests in _LIMITS
        ],
    )
    ordinary, large = (memory.value >> 20 for memory in (DecoderMemory.ORDINARY, DecoderMemory.LARGE))
    yield from paragraph(
        "A request may have 100 headers and 32 query parameters, with 8,190 bytes in its URL and in each header. The "
        "chunks of a body must have 64 bytes on average, except for a few hundred "
        f"(`{_BUDGET}`)."
    )
    yield from paragraph(
        f"An upload may have a single part, with at most 8 headers. A decoder may use {ordinary} MiB of memory, or "
        f"{large} MiB if the file needs more, a limited amount of CPU time and 32 descriptors, and it cannot write to "
        f"any file (`{_SANDBOX}`). All decoders together have a budget that follows from the memory limit of the "
        f"container: 32 files at once that need 200 MiB each do not exceed a limit of 2 GiB (`{_MEMORY}`). Files with "
        "extreme sample rates, numbers of channels, streams or tags, or nesting depths get "
        f"a prediction or a documented error (`{_EXTREMES}`)."
    )


def main() -> None:
    """Write or check the page."""
    options = generator_parser(__doc__).parse_args()
    files = {DOCS / "RELIABILITY.md": page(read_records())}
    if options.check:
        check_files(files, command="python -m bench.reliability")
    else:
        write_files(files)


if __name__ == "__main__":
    main()
