"""An engine that dies, before and after its first byte, and an instance stopped under a call."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from sparkd.core.instance import Reason
from sparkd.errors import ShuttingDownError, StartFailedError
from tests.gateway.kit import FakeLease, Rig, error_of
from tests.scripted_upstream import STREAM_HEAD, Exchange, ScriptedUpstream

DEAD = (
    b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root '
    b'cause.","type":"InternalServerError","param":null,"code":500}}'
)
DEAD_EVENTS = b"data: " + DEAD + b"\n\ndata: [DONE]\n\n"


async def dies_silently(x: Exchange) -> None:
    await x.read_body()
    x.abort()


async def dies_within_the_head(x: Exchange) -> None:
    await x.read_body()
    await x.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    x.close()


async def dies_after_the_head(x: Exchange) -> None:
    await x.read_body()
    await x.send(STREAM_HEAD)
    x.close()


async def says_that_it_is_dead(x: Exchange) -> None:
    await x.read_body()
    await x.answer(DEAD, "500 Internal Server Error")


async def says_so_within_a_stream(x: Exchange) -> None:
    await x.read_body()
    await x.begin_stream()
    await x.chunk(DEAD_EVENTS)
    await x.end_stream()


async def says_so_in_half(x: Exchange) -> None:
    await x.read_body()
    await x.send(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nEngine")
    x.close()


async def talks_garbage(x: Exchange) -> None:
    await x.read_body()
    await x.send(b"\x16\x03\x01 garbage\r\n\r\n")
    x.close()


DEATHS = [
    dies_silently,
    dies_within_the_head,
    dies_after_the_head,
    says_that_it_is_dead,
    says_so_within_a_stream,
    says_so_in_half,
    talks_garbage,
]


@pytest.mark.parametrize("death", DEATHS)
async def test_death_before_the_first_byte_is_retried_once_and_not_seen(
    rig: Rig, death, tmp_path: Path
):
    second = str(tmp_path / "second.sock")
    rig.upstream.script = death

    def lost(instance: str) -> bool:
        assert instance == "i-1"
        rig.supervisor.current = ("i-2", second)
        return True

    rig.supervisor.on_question = lost
    async with ScriptedUpstream(second), rig.chat(stream=True) as response:
        assert response.status == 200
        assert json.loads(await response.read())["model"] == "tiny"
        assert response.headers["X-Sparkd-Instance"] == "i-2"
    assert [lease.left.is_set() for lease in rig.supervisor.leases] == [True, True]


async def test_an_engine_whose_socket_is_gone_is_retried(rig: Rig, tmp_path: Path):
    alive = rig.supervisor.current[1]
    rig.supervisor.current = ("i-0", str(tmp_path / "nobody.sock"))

    def lost(_: str) -> bool:
        rig.supervisor.current = ("i-1", alive)
        return True

    rig.supervisor.on_question = lost
    async with rig.chat() as response:
        assert response.status == 200
    assert len(rig.supervisor.leases) == 2


@pytest.mark.parametrize("death", DEATHS)
async def test_a_second_death_is_told(rig: Rig, death):
    rig.upstream.script = death
    rig.supervisor.on_question = lambda _: True
    async with rig.chat(stream=True) as response:
        assert response.status == 502
        assert error_of(await response.read())["code"] == "upstream_unavailable"
    assert len(rig.supervisor.leases) == 2


@pytest.mark.parametrize("fault", [dies_silently, dies_within_the_head, talks_garbage])
async def test_a_fault_of_a_living_engine_is_a_502_without_a_second_lease(rig: Rig, fault):
    rig.upstream.script = fault
    async with rig.chat() as response:
        assert response.status == 502
        assert error_of(await response.read())["code"] == "upstream_unavailable"
    assert len(rig.supervisor.leases) == 1


async def test_last_words_of_an_engine_that_lives_on_are_passed_on(rig: Rig):
    rig.upstream.script = says_that_it_is_dead
    async with rig.chat() as response:
        assert (response.status, await response.read()) == (500, DEAD)
    assert rig.supervisor.questions == 1


async def test_the_engines_own_error_event_passes_unchanged_in_mid_stream(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        await x.chunk(b'data: {"choices":[]}\n\n')
        await x.chunk(DEAD_EVENTS)
        await x.end_stream()

    rig.upstream.script = script
    async with rig.chat(stream=True) as response:
        assert await response.read() == b'data: {"choices":[]}\n\n' + DEAD_EVENTS
    assert rig.supervisor.questions == 0


async def read_broken(response: aiohttp.ClientResponse) -> bytes:
    """What came before the break; fails when there was none."""
    got = b""
    try:
        while chunk := await response.content.readany():
            got += chunk
    except aiohttp.ClientPayloadError:
        return got
    pytest.fail(f"the answer looks complete: {got!r}")


def error_event(stream: bytes) -> dict[str, object]:
    """The last event's error."""
    events = stream.decode().replace("\r\n", "\n").rstrip("\n").split("\n\n")
    assert events[-1].startswith("data: ")
    return error_of(events[-1].removeprefix("data: "))


@pytest.mark.parametrize("sent", [b'data: {"a":1}\n\n', b'data: {"a":1}\r\n\r\n', b'data: {"a'])
@pytest.mark.parametrize("half_chunk", [False, True])
async def test_death_in_mid_stream_is_an_error_event_and_a_broken_connection(
    rig: Rig, sent: bytes, half_chunk: bool
):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        if half_chunk:
            await x.send(b"400\r\n" + sent)
        else:
            await x.chunk(sent)
        x.close()

    rig.upstream.script = script
    async with rig.chat(stream=True) as response:
        assert response.status == 200
        got = await read_broken(response)
    assert got.startswith(sent)
    assert error_event(got)["code"] == "upstream_unavailable"
    assert b"[DONE]" not in got
    assert len(rig.supervisor.leases) == 1


async def test_death_within_a_plain_answer_breaks_the_connection(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        x.close()

    rig.upstream.script = script
    async with rig.chat() as response:
        assert await read_broken(response) == b"{"


async def test_an_http10_client_sees_a_reset_not_an_end(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        await x.chunk(b"{")
        started.set()
        await may_die.wait()
        x.close()

    started, may_die = asyncio.Event(), asyncio.Event()
    rig.upstream.script = script
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(
        b"POST /v1/tiny/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    head = await reader.readuntil(b"\r\n\r\n{")
    assert b"transfer-encoding" not in head.lower()
    may_die.set()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


REVOKED = [
    (Reason.SHUTDOWN, "shutting_down"),
    (Reason.UNLOADED, "model_unloaded"),
    (Reason.STARVED, "model_unloaded"),
    (Reason.FAILED, "upstream_unavailable"),
]


@pytest.mark.parametrize(("reason", "code"), REVOKED)
async def test_an_open_stream_is_told_when_its_instance_is_stopped(
    rig: Rig, reason: Reason, code: str
):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        await x.chunk(b"data: {}\n\n")
        await x.until_client_leaves()

    rig.upstream.script = script
    async with rig.chat(stream=True) as response:
        assert await response.content.readany() == b"data: {}\n\n"
        rig.supervisor.leases[0].revoke(reason)
        got = await read_broken(response)
    assert error_event(got)["code"] == code
    async with asyncio.timeout(1):
        await rig.upstream.left.wait()


async def test_a_client_that_reads_nothing_does_not_hold_up_the_stop(rig: Rig):
    async def script(x: Exchange) -> None:
        await x.read_body()
        await x.begin_stream()
        while True:
            sent.append(0)
            await x.chunk(b"data: " + b"x" * 60_000 + b"\n\n")

    sent: list[int] = []
    rig.upstream.script = script
    async with rig.chat(stream=True):
        before = -1
        while before != len(sent):  # until everything between the two is full
            before = len(sent)
            await asyncio.sleep(0.2)
        rig.supervisor.leases[0].revoke(Reason.SHUTDOWN)
        async with asyncio.timeout(1):
            await rig.supervisor.leases[0].left.wait()
            await rig.upstream.left.wait()


@pytest.mark.parametrize(("reason", "code"), REVOKED[:2])
async def test_a_request_without_an_answer_yet_is_told_by_its_status(
    rig: Rig, reason: Reason, code: str
):
    async def script(x: Exchange) -> None:
        rig.supervisor.leases[0].revoke(reason)
        await x.until_client_leaves()

    rig.upstream.script = script
    async with rig.chat() as response:
        assert response.status == 503
        assert error_of(await response.read())["code"] == code


async def test_a_request_whose_instance_made_room_for_another_is_asked_again(rig: Rig):
    async def script(x: Exchange) -> None:
        if len(rig.upstream.exchanges) == 1:
            rig.supervisor.leases[0].revoke(Reason.STARVED)
            await x.until_client_leaves()
        else:
            await x.read_body()
            await x.answer(b"{}")

    rig.upstream.script = script
    async with rig.chat() as response:
        assert response.status == 200
    assert len(rig.supervisor.leases) == 2


async def test_a_revocation_that_overtakes_the_grant_is_not_missed(rig: Rig):
    def grant_and_revoke(lease: FakeLease) -> None:
        asyncio.get_running_loop().call_soon(both, lease)

    def both(lease: FakeLease) -> None:
        lease.grant()
        lease.revoke(Reason.SHUTDOWN)

    rig.supervisor.on_lease = grant_and_revoke
    async with rig.chat() as response:
        assert response.status == 503
        assert error_of(await response.read())["code"] == "shutting_down"
    assert rig.upstream.exchanges == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ShuttingDownError("no", retry_after=2.5), 503),
        (StartFailedError("no", cause="bad_flag", log_tail=("a",), retry_after=2.5), 503),
    ],
)
async def test_a_refusal_is_an_openai_error_with_retry_after(rig: Rig, error, status: int):
    rig.supervisor.on_lease = lambda lease: lease.refuse(error)
    async with rig.chat(stream=True) as response:
        assert response.status == status
        assert response.headers["Retry-After"] == "3"
        assert error_of(await response.read())["code"] == error.code
    assert rig.supervisor.leases[0].left.is_set()
