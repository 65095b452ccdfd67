"""How far a run is, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

# For a log, where each line stays.
_SECONDS_PER_LINE = 30.0
_SPEED_PERIOD_S = 300.0


class RunProgress:
    """Counts files, and shows the counts: a bar on a terminal, otherwise a line now and then and at the end.

    Args:
        total: Number of files of the run.
        done: Number of files that earlier runs have done, failed ones included.
        failed: Number of those that failed.
        console: Where to show them.
        clock: Monotonic time in seconds.

    Attributes:
        done: Number of files done so far, failed ones included.
        failed: Number of those that failed.
        committed: Number of files whose results are in the store, failed ones included.
        committed_failed: Number of those that failed.
        done_before: Number of files that earlier runs have done.
    """

    def __init__(
        self,
        total: int,
        *,
        done: int,
        failed: int,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.done_before = self.committed = self.done = done
        self.committed_failed = self.failed = failed
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._began = self._next_line = clock()
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.completed:,} of {task.total:,} files, {task.fields[failed]:,} failed,"),
            _SpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            redirect_stdout=False,
            disable=not self._console.is_terminal,
            speed_estimate_period=_SPEED_PERIOD_S,
        )
        self._task = self._bar.add_task("", total=total, completed=done, failed=failed)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def add(self, predicted: int, failed: int) -> None:
        """Count files that are done."""
        self.done += predicted + failed
        self.failed += failed
        self._bar.update(self._task, advance=predicted + failed, failed=self.failed)
        if not self._console.is_terminal and self._clock() >= self._next_line:
            self._print_line()

    def commit(self, predicted: int, failed: int) -> None:
        """Count files whose results are in the store."""
        self.committed += predicted + failed
        self.committed_failed += failed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if not self._console.is_terminal:
            self._print_line()

    @property
    def seconds(self) -> float:
        """How long this run has taken, in seconds."""
        return self._clock() - self._began

    @property
    def files_per_second(self) -> float:
        """Number of files per second of this run."""
        return (self.done - self.done_before) / max(self.seconds, 1e-9)

    def line(self) -> str:
        """Return the counts as a line of text."""
        counts = f"{self.done:,} of {self.total:,} files, {self.failed:,} failed"
        if self.done == self.done_before:
            return counts
        rate = self.files_per_second
        left = (self.total - self.done) / rate
        return f"{counts}, {rate:.1f} files/s, {_duration(left)} left"

    def _print_line(self) -> None:
        self._next_line = self._clock() + _SECONDS_PER_LINE
        self._console.print(self.line(), soft_wrap=True, highlight=False, markup=False)


class _SpeedColumn(ProgressColumn):
    """Files per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} files/s,")


def _duration(seconds: float) -> str:
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}"
