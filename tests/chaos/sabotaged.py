"""The real service with one door more: what comes on its standard input is done to its own threads.

``die`` ends the device thread that takes the next batch, ``hang`` lets one hang; nothing else differs from
``wholetrack serve``.
"""

from __future__ import annotations

import sys
import threading
import time

from wholetrack.cli.app import main
from wholetrack.inference.queue import Probabilities, Windows
from wholetrack.inference.session import Session

_HANG_S = 3600.0
_orders: list[str] = []
_run = Session.run


def _sabotaged_run(self: Session, windows: Windows) -> Probabilities:
    # Not where a session is opened anew and proven.
    if _orders and threading.current_thread().name.startswith("engine-"):
        match _orders.pop():
            case "die":
                raise SystemExit
            case "hang":
                time.sleep(_HANG_S)
    return _run(self, windows)


def _listen() -> None:
    _orders.extend(map(str.strip, sys.stdin))


if __name__ == "__main__":
    Session.run = _sabotaged_run  # type: ignore[method-assign]
    threading.Thread(target=_listen, daemon=True).start()
    main()
