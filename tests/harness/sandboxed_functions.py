"""Functions that tests call in the sandbox. Only the standard library is imported."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable

MODULE = __name__


def prepare() -> None:
    """Do nothing: importing this module is enough."""


def prepare_with_a_thread() -> None:
    """Start a thread, which a launcher must not have."""
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def send_shared_memory(control: int) -> None:
    """Reply to each message with sealed shared memory that contains it, until the socket is closed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, control) as connection:
        while message := connection.recv(100):
            memory = os.memfd_create("reply", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.write(memory, message)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
            socket.send_fds(connection, [b"here"], [memory])
            os.close(memory)


def attempt(control: int) -> None:
    """Send the names of the forbidden actions that did not fail."""
    actions: dict[str, Callable[[], object]] = {
        "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "open own module": lambda: os.open(__file__, os.O_RDONLY),
        "write": lambda: os.open("/tmp/new", os.O_CREAT | os.O_WRONLY),
        "fork": os.fork,
        "signal": lambda: os.kill(os.getppid(), 0),
        "socket": socket.socket,
        "execve": lambda: os.execve("/bin/true", ["true"], {}),
    }
    succeeded = []
    for name, action in actions.items():
        try:
            action()
            succeeded.append(name)
        except OSError:
            continue
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, control) as connection:
        connection.send(",".join(succeeded).encode() or b"none")


def describe(control: int) -> None:
    """Send the environment variables and the number of open descriptors."""
    n_descriptors = sum(1 for number in range(256) if _is_open(number))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, control) as connection:
        connection.send(f"{sorted(os.environ)} {n_descriptors}".encode())


def wait(control: int) -> None:
    """Wait until the socket is closed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, control) as connection:
        connection.recv(1)


def fail(_: int) -> None:
    """Raise an error."""
    raise ValueError("deliberately")


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True
