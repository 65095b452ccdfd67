"""Standard input, output and error for processes that were started without them."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Connect each standard stream that is closed to ``/dev/null``.

    Otherwise its descriptor would go to the next file or socket that is opened, which a child process would then take
    for its standard stream, and Python's objects for the streams would be None.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one, because those below it are open.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)  # noqa: FBT003
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - open until the process ends
