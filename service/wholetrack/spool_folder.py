"""The private folder of one process for recordings, and the removal of folders that killed processes left behind."""

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
def spool_folder(temp_dir: Path) -> Iterator[Path]:
    """Create a folder for recordings that only this user can read, and remove it when the block ends.

    A killed process leaves its folder behind, but the kernel releases its lock, so the next process can tell that the
    folder is abandoned and removes it.

    Args:
        temp_dir: An existing folder, which other processes may use as well.

    Raises:
        OSError: If the folder cannot be created.
    """
    _remove_abandoned(temp_dir)
    home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=temp_dir))
    lock = os.open(home / "locking", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Processes that clean up skip folders without a lock file, so it gets its name only once it is locked.
        (home / "locking").rename(home / _LOCK)
        uploads = home / "uploads"
        uploads.mkdir(mode=0o700)
        yield uploads
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(temp_dir: Path) -> None:
    for lock in temp_dir.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _log.warning("removing the folder of a killed process with %d files", len(list(lock.parent.glob("*/*"))))
            shutil.rmtree(lock.parent, ignore_errors=True)
