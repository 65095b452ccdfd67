"""The memory limit that applies to the service, with every layout of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from wholetrack.memory_limit import is_in_memory, memory_limit_bytes, used_bytes

_MACHINE_KIB = 16 << 20
_MACHINE_BYTES = _MACHINE_KIB * 1024
_GIB = 1 << 30
_V2 = "30 24 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
_V1 = "33 25 0:29 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
_V1_CPU = "31 25 0:28 {root} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct"


def machine(root: Path, *, mounts: tuple[str, ...] = (), groups: str = "", limits: dict[str, str] | None = None) -> int:
    """Return the limit on a machine of 16 GiB with these mounts, memberships, and contents of limit files."""
    files = {
        "proc/meminfo": f"MemTotal:       {_MACHINE_KIB} kB\nMemFree:        100 kB\n",
        "proc/self/mountinfo": "".join(f"{mount}\n" for mount in mounts),
        "proc/self/cgroup": groups,
        **(limits or {}),
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return memory_limit_bytes(root)


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert machine(tmp_path) == _MACHINE_BYTES


def test_a_group_without_a_limit_leaves_that_of_the_machine(tmp_path: Path) -> None:
    v2 = machine(
        tmp_path / "v2",
        mounts=(_V2.format(root="/"),),
        groups="0::/user.slice\n",
        limits={"sys/fs/cgroup/user.slice/memory.max": "max\n"},
    )
    v1 = machine(
        tmp_path / "v1",
        mounts=(_V1.format(root="/"),),
        groups="4:memory:/\n",
        limits={"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
    )
    assert v2 == v1 == _MACHINE_BYTES


def test_a_container_with_a_namespace_of_its_own_sees_its_limit_at_the_top(tmp_path: Path) -> None:
    """As Docker and Kubernetes start containers with version 2."""
    limits = {"sys/fs/cgroup/memory.max": f"{4 * _GIB}\n", "sys/fs/cgroup/memory.high": "max\n"}
    assert machine(tmp_path, mounts=(_V2.format(root="/"),), groups="0::/\n", limits=limits) == 4 * _GIB


def test_a_container_without_a_namespace_sees_its_limit_at_the_mount(tmp_path: Path) -> None:
    """As Docker starts containers with version 1: the group is that of the machine, the mount that of the container."""
    for group in ("/docker/abc", "/system.slice/other", "/../abc"):
        limit = machine(
            tmp_path,
            mounts=(_V1_CPU.format(root="/docker/abc"), _V1.format(root="/docker/abc")),
            groups=f"5:cpu,cpuacct:/docker/abc\n4:memory:{group}\n0::/\n",
            limits={"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{_GIB}\n"},
        )
        assert limit == _GIB


@pytest.mark.parametrize(("own", "parent", "lowest"), [(3, 2, 2), (2, 3, 2), (None, 2, 2), (3, None, 3)])
def test_the_lowest_limit_of_a_group_and_its_parents_applies(
    tmp_path: Path, own: int | None, parent: int | None, lowest: int
) -> None:
    """As systemd nests a service in slices."""
    folder = "sys/fs/cgroup/system.slice"
    limits = {
        f"{folder}/memory.max": "max" if parent is None else str(parent * _GIB),
        f"{folder}/wholetrack.service/memory.max": "max" if own is None else str(own * _GIB),
    }
    groups = "0::/system.slice/wholetrack.service\n"
    assert machine(tmp_path, mounts=(_V2.format(root="/"),), groups=groups, limits=limits) == lowest * _GIB


def test_a_group_is_also_limited_by_the_threshold_above_which_it_is_slowed_down(tmp_path: Path) -> None:
    limits = {"sys/fs/cgroup/memory.max": f"{4 * _GIB}\n", "sys/fs/cgroup/memory.high": f"{3 * _GIB}\n"}
    assert machine(tmp_path, mounts=(_V2.format(root="/"),), groups="0::/\n", limits=limits) == 3 * _GIB


def test_files_of_a_tmpfs_are_in_memory(tmp_path: Path) -> None:
    machine(
        tmp_path,
        mounts=(
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
            "40 22 0:35 / /tmp rw,noexec - tmpfs tmpfs rw,size=2097152k",
            "41 40 8:2 / /tmp/on\\040disk rw - ext4 /dev/sdb1 rw",
            "42 22 0:36 / /mnt rw - tmpfs tmpfs rw",
            "43 22 8:3 / /mnt rw - ext4 /dev/sdc1 rw",
        ),
    )
    expected = {"/tmp/uploads": True, "/tmp/on disk": False, "/mnt": False, "/": False}
    assert {folder: is_in_memory(Path(folder), tmp_path) for folder in expected} == expected


def test_this_machine_has_memory_and_this_process_uses_some() -> None:
    assert 1 << 20 < used_bytes() < memory_limit_bytes()
    assert is_in_memory(Path("/dev/shm"))
