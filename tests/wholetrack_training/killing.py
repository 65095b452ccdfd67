"""A job that is run in processes that are killed at random moments, until it finishes.

    python -m tests.wholetrack_training.killing train <undisturbed folder> <killed folder>
    python -m tests.wholetrack_training.killing extract <undisturbed folder> <killed folder> <folder of music>

First the job runs undisturbed and its function calls are counted. Then it is run repeatedly, each time in a process
that kills itself at a random function call, and finally once more to the end. The processes are forked from this one,
so PyTorch is imported only once. No moment depends on a clock.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KILLS = 10
_SEED = 7


def main(job: str, undisturbed: Path, killed: Path, *arguments: str) -> None:
    """Run the job, and print how often it was killed."""
    run = _JOBS[job](*arguments)
    n_calls = _calls_of(lambda: run(undisturbed))
    # Ten times a twelfth of the job on average, less what each process repeats: all are killed before the end.
    moments = np.random.default_rng(_SEED).integers(1, n_calls // 6, KILLS)
    n_killed = sum(not _finishes(lambda: run(killed), kill_at=int(moment)) for moment in moments)
    assert _finishes(lambda: run(killed), kill_at=None)
    print(json.dumps({"killed": n_killed}))


def _training() -> Callable[[Path], Any]:
    import torch

    from tests.wholetrack_training.small_network import FULL, SMALL_SHAPE, toy_spec
    from tests.wholetrack_training.toys import toy_set
    from wholetrack_training.fitting.runs import Run

    torch.set_num_threads(1)
    changes = {"windows_per_track": 4, "schedule.epochs": 12, "schedule.batch": 16}
    recipe, toys = FULL.changed({**SMALL_SHAPE, **changes}), toy_set(per_genre=8)
    # The forked processes inherit what one epoch imports and caches.
    with tempfile.TemporaryDirectory() as folder:
        Run(Path(folder)).fit(toys, toy_spec(toys), recipe.changed({"schedule.epochs": 1}))
    return lambda folder: Run(folder).fit(toys, toy_spec(toys), recipe)


def _extraction(music: str) -> Callable[[Path], Any]:
    from tests.wholetrack_training.features import AUDIO, FEATURES
    from wholetrack.decoding.decoder import FfmpegDecoder
    from wholetrack.decoding.ffmpeg import find_ffmpeg
    from wholetrack_training.data.folder import load_folder

    ffmpeg = find_ffmpeg()

    def extract(cache: Path) -> None:
        load_folder(Path(music), audio=AUDIO, features=FEATURES, decoder=FfmpegDecoder(ffmpeg), cache=cache)

    return extract


_JOBS: dict[str, Callable[..., Callable[[Path], Any]]] = {"train": _training, "extract": _extraction}


def _calls_of(run: Callable[[], Any]) -> int:
    """Run to the end in a process of its own and return its number of function calls."""
    reader, writer = os.pipe()

    def count() -> None:
        calls = itertools.count()
        _on_every_call(lambda: next(calls))
        run()
        os.write(writer, str(next(calls)).encode())

    status = _run_in_fork(count)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert status == 0, "the job failed"
        return int(pipe.read())


def _finishes(run: Callable[[], Any], *, kill_at: int | None) -> bool:
    """Run in a process of its own that is killed at a function call; return whether it finished before."""

    def run_until_killed() -> None:
        if kill_at is not None:
            calls = itertools.count()
            _on_every_call(lambda: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == kill_at else None)
        run()

    status = _run_in_fork(run_until_killed)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"the job failed with status {status}"
    return not killed


def _run_in_fork(run: Callable[[], Any]) -> int:
    """Run in a forked process and return its wait status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        run()
    except BaseException:  # noqa: BLE001 - the process must not return into the code of its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _on_every_call(act: Callable[[], Any]) -> None:
    """Call ``act`` whenever a Python function is called, in this thread and in all that it starts."""

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        if event == "call":
            act()

    threading.setprofile(profile)
    sys.setprofile(profile)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
