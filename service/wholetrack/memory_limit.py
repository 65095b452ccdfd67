"""How much memory the service may use: the machine's, or less if a control group limits it (cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

# The first two of version 2, the last of version 1. A group above memory.high is slowed down heavily.
_LIMIT_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
_KEPT_IN_MEMORY = ("tmpfs", "ramfs")


class _Mount(NamedTuple):
    """A line of mountinfo (proc_pid_mountinfo(5)): what is mounted where, and with which options."""

    root: str
    point: str
    kind: str
    options: frozenset[str]


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """Return the memory of the machine, or the lowest limit of this process's control group and the groups above it.

    In a container, groups above that of the container may be invisible. ``root`` replaces the root of the file system.
    """
    (total,) = (line for line in _lines(root / "proc/meminfo") if line.startswith("MemTotal:"))
    limits = [int(total.split()[1]) * 1024]
    for folder in _control_groups(root):
        for name in _LIMIT_FILES:
            limits += [int(line) for line in _lines(folder / name) if line.isdigit()]
    return min(limits)


def used_bytes(root: Path = Path("/")) -> int:
    """Return how much memory this process uses."""
    (resident,) = (line for line in _lines(root / "proc/self/status") if line.startswith("VmRSS:"))
    return int(resident.split()[1]) * 1024


def is_in_memory(folder: Path, root: Path = Path("/")) -> bool:
    """Return whether files in an absolute path ``folder`` use memory instead of a disk."""
    mounts = [mount for mount in _mounts(root) if folder.is_relative_to(mount.point)]
    # The deepest mount applies. Of several at the same place, the last one hides the others.
    deepest = max(reversed(mounts), key=lambda mount: len(mount.point), default=None)
    return deepest is not None and deepest.kind in _KEPT_IN_MEMORY


def _control_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that limit the memory of this process, in both versions."""
    memberships = dict(line.split(":", 2)[1:] for line in _lines(root / "proc/self/cgroup"))
    for mount in _mounts(root):
        if mount.kind == "cgroup2":
            group = memberships.get("")
        elif mount.kind == "cgroup" and "memory" in mount.options:
            group = next((path for names, path in memberships.items() if "memory" in names.split(",")), None)
        else:
            continue
        top = root / mount.point.lstrip("/")
        folder = top / _below(mount.root, group) if group is not None else top
        yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(top)))


def _below(top: str, group: str) -> PurePosixPath:
    """Return the path of a group below the group that is mounted; "." if it is not below it, as seen from here."""
    path = PurePosixPath(group)
    return path.relative_to(top) if path.is_relative_to(top) and ".." not in path.parts else PurePosixPath()


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        place, _, what = line.partition(" - ")
        _, _, _, top, point, *_ = place.split()
        kind, _, options = what.split(None, 2)
        yield _Mount(_unescaped(top), _unescaped(point), kind, frozenset(options.split(",")))


def _unescaped(path: str) -> str:
    r"""Replace the octal escapes of mountinfo, such as ``\040`` for a space."""
    return path.encode().decode("unicode_escape").encode("latin-1").decode()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
