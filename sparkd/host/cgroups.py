"""Which cgroups (v2) this process lives in, and whether its own was delegated to it.

Reads only. A cgroup that nobody delegated belongs to systemd, even where root could write to it.
"""

from __future__ import annotations

import os
from pathlib import Path

#: systemd marks a cgroup whose unit has `Delegate=yes` with one of these, set to 1.
#: Source: systemd 251 NEWS (user.delegate) and "Control Group APIs and Delegation", 2026-11-23.
_DELEGATED = ("user.delegate", "trusted.delegate")


def own_cgroups(proc: Path) -> list[Path]:
    """This process's cgroup and its ancestors below the root, where they are mounted."""
    root = _cgroup2_mount(proc)
    lines = (proc / "self/cgroup").read_text().splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if root is None or own is None:
        return []
    path = root / own.strip("/")
    return [one for one in (path, *path.parents) if one.is_relative_to(root) and one != root]


def delegated_cgroup(proc: Path = Path("/proc")) -> Path | None:
    """This process's own cgroup, if instances may have cgroups of their own inside it."""
    own = next(iter(own_cgroups(proc)), None)
    if own is None or not (own / "cgroup.kill").exists():
        return None
    return own if _is_marked(own) and os.access(own, os.W_OK) else None


def _is_marked(cgroup: Path) -> bool:
    for name in _DELEGATED:
        try:
            if os.getxattr(cgroup, name) == b"1":
                return True
        except OSError:
            continue  # not set, or not ours to read
    return False


def _cgroup2_mount(proc: Path) -> Path | None:
    for line in (proc / "self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(where)
    return None
