"""When a request may go out a second time, and when it must not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sparkd.core.instance import InstanceId, Reason
from sparkd.gateway.engines import Engines, Question
from sparkd.gateway.headers import to_engine
from tests.gateway.kit import Rig, error_of
from tests.scripted_upstream import Exchange


async def test_a_request_on_a_new_connection_goes_out_once(rig: Rig):
    async def takes_it_and_hangs_up(x: Exchange) -> None:
        await x.read_body()
        x.close()

    rig.upstream.script = takes_it_and_hangs_up
    async with rig.chat() as response:
        assert response.status == 502
    assert len(rig.upstream.exchanges) == 1, "the engine may have done the work already"


async def test_a_request_goes_out_twice_at_most(rig: Rig):
    async def hangs_up_on_all_but_the_first(x: Exchange) -> None:
        await x.read_body()
        if len(rig.upstream.exchanges) == 1:
            await x.answer(b"{}")
        else:
            x.close()

    rig.upstream.script = hangs_up_on_all_but_the_first
    async with rig.chat() as response:
        assert response.status == 200
    async with rig.chat() as response:
        assert response.status == 502
    assert len(rig.upstream.exchanges) == 3


@pytest.mark.parametrize(
    ("reason", "code"),
    [(Reason.UNLOADED, "model_unloaded"), (Reason.SHUTDOWN, "shutting_down")],
)
async def test_what_an_operator_stopped_is_not_started_again_for_a_failed_exchange(
    rig: Rig, reason: Reason, code: str
):
    """The exchange fails, and while its cause is looked for, the instance is stopped."""

    async def hangs_up(x: Exchange) -> None:
        await x.read_body()
        x.close()

    def stopped_meanwhile(_: InstanceId) -> bool:
        rig.supervisor.leases[0].revoke(reason)
        return True

    rig.upstream.script = hangs_up
    rig.supervisor.on_question = stopped_meanwhile
    async with rig.chat() as response:
        assert response.status == 503
        assert error_of(await response.read())["code"] == code
    assert len(rig.supervisor.leases) == 1


@pytest.mark.parametrize("is_lost", [False, True])
async def test_no_path_of_this_machine_is_in_the_error(rig: Rig, tmp_path: Path, is_lost: bool):
    rig.supervisor.current = ("i-0", str(tmp_path / "nobody.sock"))
    rig.supervisor.on_question = lambda _: is_lost
    async with rig.chat() as response:
        assert response.status == 502
        said = error_of(await response.read())["message"]
    assert str(tmp_path) not in said
    assert ".sock" not in said
    assert "No such file or directory" in said


async def test_a_request_cancelled_while_it_cleans_up_leaves_no_open_session(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """The first request to a new instance closes the sessions of those that are gone."""
    engines = Engines(lambda: ())
    question = Question("/v1/completions", to_engine(rig.client.headers, "r"), b"{}")  # type: ignore[arg-type]
    grants = []
    for instance in ("i-1", "i-2", "i-3"):
        rig.supervisor.current = (instance, rig.supervisor.current[1])
        async with rig.supervisor.lease(rig.supervisor.resolve("tiny").id) as lease:
            grants.append(await lease.granted())
    first, second, third = grants
    assert first is not None
    assert second is not None
    assert third is not None
    engines._alive = lambda: {first.instance, second.instance}
    sessions = []
    for grant in (first, second):
        (await engines.ask(grant, question)).close()
        sessions += [engines._links[grant.instance].pooled, engines._links[grant.instance].fresh]
    engines._alive = lambda: ()
    original = type(sessions[0]).close

    async def close_slowly(self) -> None:
        await original(self)
        if self is sessions[1]:
            raise asyncio.CancelledError

    monkeypatch.setattr(type(sessions[0]), "close", close_slowly)
    with pytest.raises(asyncio.CancelledError):
        await engines.ask(third, question)
    monkeypatch.undo()
    await engines.close()
    assert [session.closed for session in sessions] == [True] * 4
