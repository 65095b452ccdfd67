"""``wholetrack serve`` with commands on standard input that break its device threads.

``die`` ends the device thread that takes the next batch, and ``hang`` makes it hang. Otherwise it is the real service.
"""

from __future__ import annotations

import sys
import threading
import time

from wholetrack.cli.app import main
from wholetrack.inference.queue import Probabilities, Windows
from wholetrack.inference.session import Session

_HANG_S = 3600.0
_commands: list[str] = []
_run = Session.run


def _breakable_run(self: Session, windows: Windows) -> Probabilities:
    # Only device threads break, not the thread that reopens a session and checks its golden.
    if _commands and threading.current_thread().name.startswith("engine-"):
        match _commands.pop():
            case "die":
                raise SystemExit
            case "hang":
                time.sleep(_HANG_S)
    return _run(self, windows)


def _read_commands() -> None:
    _commands.extend(map(str.strip, sys.stdin))


if __name__ == "__main__":
    Session.run = _breakable_run  # type: ignore[method-assign]
    threading.Thread(target=_read_commands, daemon=True).start()
    main()
