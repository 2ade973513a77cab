"""What keeps the daemon from starting is said in sentences, with what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from sparkd.config import PathSettings
from sparkd.daemon import _make_directories
from tests.daemon.kit import CLONE, House
from tests.host.kit import short_directory
from tests.host.test_ordinary_user import as_nobody, python_for_nobody


def refusal(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """What was said; fails when it is not said as an operator needs it."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


async def test_a_port_that_is_taken_is_named(house: House):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        house.configure(server={"listen": [f"127.0.0.1:{port}"]})
        said = refusal(house.sparkd("serve"))
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said
    assert "hint" in said
    assert not house.control_socket.exists()


async def test_a_second_sparkd_on_the_same_socket_is_refused_and_harms_nothing(house: House):
    house.model("a")
    daemon = await house.start()
    await daemon.chat("a")
    said = refusal(house.sparkd("serve"))
    assert f"cannot listen on {house.control_socket}: somebody does" in said
    assert "is another sparkd running?" in said
    assert await daemon.states() == {"a": "ready"}
    assert (await daemon.chat("a")).status == 200
    assert house.starts() == ["a"]


async def test_a_stale_control_socket_is_replaced(house: House):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(house.control_socket))
    daemon = await house.start()
    assert await daemon.states() == {}


def test_a_state_directory_that_may_not_be_written_is_named_to_an_ordinary_user():
    with short_directory() as root:
        house = House(root)
        (root / "closed").mkdir(mode=0o555)
        house.configure(paths={"state": str(root / "closed/state")})
        for path in (root, *root.rglob("*")):
            path.chmod(path.stat().st_mode | 0o055)
        said = refusal(_serve_as_ordinary_user(house))
    assert f"cannot make the directory {root}/closed/state: Permission denied" in said
    assert "hint" in said
    assert "[paths]" in said


def _serve_as_ordinary_user(house: House) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        return house.sparkd("serve")
    python = python_for_nobody(house.root)
    if python is None:
        pytest.skip(f"an ordinary user may not read {CLONE}, or may not run Python")
    return as_nobody(house.root, python, "-m", "sparkd", "serve", "--config", str(house.file))


@pytest.mark.parametrize("command", ["serve", "check"])
def test_every_mistake_of_the_configuration_is_listed(command: str):
    with short_directory() as root:
        house = House(root)
        house.configure(server={"listne": []}, log={"level": "loud"})
        house.model("a", memory={"budget": "much"})
        house.model("b", colour="red")
        said = refusal(house.sparkd(command))
    assert "cannot use the configuration: 4 problems" in said
    for word in ("listne", "did you mean 'listen'", "loud", "much", "colour", "sparkd.toml"):
        assert word in said


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_file_that_is_not_there_is_named(command: str):
    with short_directory() as root:
        house = House(root)
        house.file.unlink()
        assert str(house.file) in refusal(house.sparkd(command))


def test_an_unknown_option_is_a_usage_error():
    with short_directory() as root:
        house = House(root)
        assert "usage:" in refusal(house.sparkd("serve", "--prot", "1"), status=2)
        assert "usage:" in refusal(house.sparkd("dance"), status=2)


def test_a_check_of_a_good_configuration_counts_the_models():
    with short_directory() as root:
        house = House(root)
        house.model("a")
        done = house.sparkd("check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 model, no mistakes\n", "")


async def test_a_run_directory_on_a_path_too_long_for_sockets_is_said(house: House):
    deep = house.root / ("d" * 90)
    house.configure(paths={"run": str(deep)})
    said = refusal(house.sparkd("serve"))
    assert "paths.run: is too long" in said
    assert "hint" in said


async def test_missing_weights_and_a_missing_runtime_are_told_without_disturbing_anybody(
    house: House,
):
    house.configure(memory={"limit": "100MiB"})
    house.model("good")
    house.model("unfetched", weights=False)
    house.model("unbuilt", runtime="absent")
    shutil.rmtree(house.root / "w/unfetched", ignore_errors=True)
    daemon = await house.start()
    await daemon.chat("good")
    for model, word in (("unfetched", str(house.root / "w/unfetched")), ("unbuilt", "absent")):
        reply = await daemon.chat(model)
        assert (reply.status, reply.error["code"]) == (503, "model_not_available")
        assert word in reply.error["message"]
        assert "hint" in reply.error["message"]
    assert await daemon.states() == {"good": "ready"}
    assert house.starts() == ["good"]
    said = refusal(house.sparkd("check"))
    assert "unfetched.toml" in said
    assert "unbuilt.toml" in said
    assert Path(house.root / "w/unfetched").name in daemon.log  # warned of at the start


def test_everybody_may_reach_the_control_socket_but_not_look_into_the_state(tmp_path: Path):
    paths = PathSettings(
        models=(), runtimes=tmp_path / "runtimes", state=tmp_path / "state", run=tmp_path / "run"
    )
    before = os.umask(0o022)
    try:
        _make_directories(paths)
    finally:
        os.umask(before)
    assert paths.run.stat().st_mode & 0o777 == 0o755
    assert paths.state.stat().st_mode & 0o777 == 0o750
