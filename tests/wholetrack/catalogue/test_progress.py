"""The counts that a run shows."""

from __future__ import annotations

import io

from rich.console import Console

from wholetrack.catalogue.progress import RunProgress


def test_a_log_gets_a_line_now_and_then_with_the_rate_of_this_run() -> None:
    now, shown = 100.0, io.StringIO()
    with RunProgress(1000, done=100, failed=2, console=Console(file=shown, width=20), clock=lambda: now) as progress:
        for _ in range(100):
            now += 0.5
            progress.add(1, 0)
        now += 10
        progress.add(0, 1)
        progress.commit(60, 1)
    assert shown.getvalue().splitlines() == [
        "101 of 1,000 files, 2 failed, 2.0 files/s, 0:07:30 left",
        "161 of 1,000 files, 2 failed, 2.0 files/s, 0:07:00 left",
        "201 of 1,000 files, 3 failed, 1.7 files/s, 0:07:55 left",
    ]
    assert (progress.done, progress.failed, progress.done_before) == (201, 3, 100)
    assert (progress.committed, progress.committed_failed) == (161, 3)
    assert progress.line() == "201 of 1,000 files, 3 failed, 1.7 files/s, 0:07:55 left"


def test_a_run_without_new_files_has_no_rate() -> None:
    progress = RunProgress(5, done=5, failed=1, console=Console(file=io.StringIO()))
    assert progress.line() == "5 of 5 files, 1 failed"
    assert progress.files_per_second == 0


def test_a_terminal_gets_a_bar() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with RunProgress(2000, done=0, failed=0, console=console) as progress:
        progress.add(1500, 3)
    assert "1,503 of 2,000 files, 3 failed," in shown.getvalue()
