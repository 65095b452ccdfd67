"""The private folder where uploads lie, one for each process, and what is left of those that were killed."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_log = logging.getLogger(__name__)

_PREFIX = "wholetrack-"
_LOCK = "lock"


@contextmanager
def upload_folder(temp_dir: Path) -> Iterator[Path]:
    """A folder in ``temp_dir`` that nobody else can look into, gone when the block is left.

    A process that is killed leaves its folder, but not its lock on it: the next one removes what nobody holds.

    Raises:
        OSError: if no folder can be made there.
    """
    _sweep(temp_dir)
    home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=temp_dir))
    lock = os.open(home / "locking", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Nobody sweeps a folder without a lock: it may just be about to get one.
        (home / "locking").rename(home / _LOCK)
        uploads = home / "uploads"
        uploads.mkdir(mode=0o700)
        yield uploads
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(lock)


def _sweep(temp_dir: Path) -> None:
    for lock in temp_dir.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _log.warning("removing what a process left that was killed: %d uploads", len(list(lock.parent.glob("*/*"))))
            shutil.rmtree(lock.parent, ignore_errors=True)
