"""``wholetrack serve`` with commands on standard input that break its device threads.

``die`` ends the device thread that takes the next batch, and ``hang`` makes it hang. Otherwise it is the real service.

A thread breaks only after it has classified a batch. If a restarted thread broke before that, its restart would count
as failed, and the service would rightly end its process.
"""

from __future__ import annotations

import sys
import threading
import time

from wholetrack.cli.app import main
from wholetrack.contracts import Rows, Windows
from wholetrack.inference.session import Session

_HANG_S = 3600.0
_commands: list[str] = []
_run = Session.run
_thread = threading.local()


def _breakable_run(self: Session, windows: Windows) -> Rows:
    if _commands and getattr(_thread, "has_classified", False):
        match _commands.pop():
            case "die":
                raise SystemExit
            case "hang":
                time.sleep(_HANG_S)
    outputs = _run(self, windows)
    # Neither the thread that opens a session nor the silent window of a restarted worker counts.
    is_worker = threading.current_thread().name.startswith("engine-")
    _thread.has_classified = getattr(_thread, "has_classified", False) or (is_worker and bool(windows.arrays[0].any()))
    return outputs


def _read_commands() -> None:
    _commands.extend(map(str.strip, sys.stdin))


if __name__ == "__main__":
    Session.run = _breakable_run  # type: ignore[method-assign]
    threading.Thread(target=_read_commands, daemon=True).start()
    main()
