"""A log record is one line, whatever a client puts into it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

_FORGED = "/x\n2026-11-25 INFO service: all is well \x1b[31m\x85\u2028 é"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_record_is_one_line_whatever_it_contains(log_format: str) -> None:
    program = f"""
import logging
from wholetrack.logs import configure_logs
configure_logs(level="info", log_format={log_format!r})
logging.getLogger("wholetrack").info("request for %s", {_FORGED!r})
"""
    written = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    (line,) = written.splitlines()
    assert line.isprintable()
    if log_format == "json":
        assert json.loads(line)["message"] == f"request for {_FORGED}"
    else:
        assert line.endswith(r"request for /x\n2026-11-25 INFO service: all is well \x1b[31m\x85\u2028 é")


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_records_are_text_on_a_terminal_and_json_elsewhere(on_a_terminal: bool) -> None:  # noqa: FBT001
    program = """
import logging
from wholetrack.logs import configure_logs
configure_logs(level="info", log_format="auto")
logging.getLogger("wholetrack").info("all is well")
"""
    reader, writer = os.openpty() if on_a_terminal else os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as log:
        subprocess.run([sys.executable, "-c", program], stderr=writer, check=True)
        os.write(writer, b"\n")
        os.close(writer)
        line = log.read(10_000).splitlines()[0]
    assert line.startswith(b"{") == (not on_a_terminal)
    assert line.endswith(b"wholetrack: all is well") == on_a_terminal
