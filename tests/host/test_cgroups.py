"""A cgroup is used only where systemd, or another owner, has said that it is ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkd.host.cgroups import delegated_cgroup, own_cgroups
from tests.left_out import leave_out


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc whose process lives in the cgroup /a/b, mounted at tmp_path/cgroup."""
    proc, cgroup = tmp_path / "proc/self", tmp_path / "cgroup/a/b"
    proc.mkdir(parents=True)
    cgroup.mkdir(parents=True)
    (cgroup / "cgroup.kill").touch()
    (proc / "cgroup").write_text("1:cpu:/elsewhere\n0::/a/b\n")
    (proc / "mounts").write_text(f"cgroup2 {tmp_path / 'cgroup'} cgroup2 rw 0 0\n")
    return proc.parent


def mark(cgroup: Path, value: bytes) -> None:
    try:
        os.setxattr(cgroup, "user.delegate", value)
    except OSError as error:
        leave_out(f"the file system of the temporary directory has no extended attributes: {error}")


def test_the_own_cgroup_comes_first_then_its_ancestors(proc: Path, tmp_path: Path):
    assert own_cgroups(proc) == [tmp_path / "cgroup/a/b", tmp_path / "cgroup/a"]


def test_a_cgroup_that_nobody_delegated_is_left_alone(proc: Path):
    assert delegated_cgroup(proc) is None


def test_a_delegated_cgroup_is_used(proc: Path, tmp_path: Path):
    mark(tmp_path / "cgroup/a/b", b"1")
    assert delegated_cgroup(proc) == tmp_path / "cgroup/a/b"


def test_a_mark_that_says_no_is_a_no(proc: Path, tmp_path: Path):
    mark(tmp_path / "cgroup/a/b", b"0")
    assert delegated_cgroup(proc) is None


def test_a_kernel_without_cgroup_kill_is_not_asked_for_it(proc: Path, tmp_path: Path):
    mark(tmp_path / "cgroup/a/b", b"1")
    (tmp_path / "cgroup/a/b/cgroup.kill").unlink()
    assert delegated_cgroup(proc) is None


def test_a_machine_without_cgroup_v2_has_none(proc: Path):
    (proc / "self/mounts").write_text("tmpfs /tmp tmpfs rw 0 0\n")
    assert own_cgroups(proc) == []
    assert delegated_cgroup(proc) is None
