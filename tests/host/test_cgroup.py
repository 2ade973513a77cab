"""With a delegated cgroup a kill needs one write, and the cgroup is gone with its instance."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkd.core.quantities import Seconds
from sparkd.host.logs import LogStore
from sparkd.host.processes import ProcessLauncher
from tests.host.kit import Bench, fake_model, short_directory


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of this test's own, where this user may make one."""
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        mine = root / f"sparkd-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            mine.mkdir()
            if (mine / "cgroup.kill").exists():
                yield mine
                mine.rmdir()
                return
            mine.rmdir()
    pytest.skip("no cgroup v2 that this user may use")


async def test_a_cgroup_that_takes_no_process_costs_the_cgroup_not_the_start(cgroup: Path):
    (cgroup / "cgroup.type").write_text("threaded")  # its children are invalid until they are too
    with short_directory() as run_dir:
        logs = LogStore(run_dir / "logs")
        launcher = await ProcessLauncher.open(run_dir, logs, cgroup=cgroup)
        bench = Bench(launcher, run_dir, logs)
        await bench.ready()
        assert any("cannot enter cgroup" in line for line in bench.lines)
        await launcher.close()
        await logs.close()


@pytest.mark.parametrize("victim", ["nothing", "shim"])
async def test_an_instance_lives_and_dies_in_a_cgroup_of_its_own(cgroup: Path, victim: str):
    with short_directory() as run_dir:
        logs = LogStore(run_dir / "logs")
        launcher = await ProcessLauncher.open(run_dir, logs, cgroup=cgroup)
        bench = Bench(launcher, run_dir, logs)
        engine = await bench.ready(fake_model("tiny", "--fake-detach", "2"))
        members = (cgroup / "n0001/cgroup.procs").read_text().split()
        assert str(engine.main_pid) in members
        assert len(members) == 4  # the API server, EngineCore and the two it detached
        assert str(engine.shim_pid) not in members
        if victim == "shim":
            os.kill(engine.shim_pid, 9)
        else:
            engine.stop(Seconds(0))
        await engine.wait_gone()
        assert bench.alive() == []
        assert not (cgroup / "n0001").exists()
        await launcher.close()
        await logs.close()
