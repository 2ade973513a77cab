"""Who may do what on the control socket. Strangers are real: other credentials at connect."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from sparkd.api.access import Access, Administrators, Peer, credentials
from sparkd.api.app import ROUTES, make_api
from sparkd.http.runner import listen_tcp, make_runner
from tests.api.fakes import FakeDaemon

NOBODY = 65534
OPERATORS = 54321


@contextmanager
def stranger(*groups: int) -> Iterator[None]:
    """As root: another user for as long as the block. Else we are the stranger: see `owner`."""
    if os.geteuid() != 0:
        yield
        return
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def owner() -> int:
    """The daemon's uid in these tests: not the one that connects."""
    return 0 if os.geteuid() == 0 else os.geteuid() + 1


async def session_over(sock: socket.socket) -> aiohttp.ClientSession:
    """A client whose only connection is `sock`: its credentials are those of the connect."""

    class Connector(aiohttp.UnixConnector):
        async def _create_connection(self, *args: object, **kwargs: object):
            loop = self._loop
            _, protocol = await loop.create_unix_connection(self._factory, sock=sock)
            return protocol

    return aiohttp.ClientSession("http://sparkd", connector=Connector("unused"))


async def statuses(path: str, *groups: int) -> dict[str, int]:
    """What each route answers to a stranger in these groups."""
    sock = socket.socket(socket.AF_UNIX)
    with stranger(*groups):
        sock.connect(path)
    sock.setblocking(False)
    found = {}
    async with await session_over(sock) as session:
        for route in ROUTES:
            url = "/sparkd/v1" + route.path.replace("{id}", "small")
            async with session.request(route.method, url) as response:
                await response.read()
                found[f"{route.method} {route.path}"] = response.status
    return found


async def test_a_stranger_reads_and_changes_nothing():
    daemon = FakeDaemon()
    daemon.operations.finish.set()
    async with daemon.served(Administrators(own_uid=owner(), group=OPERATORS)) as path:
        found = await statuses(path)
    assert found == {
        "GET /status": 200,
        "GET /models": 200,
        "GET /models/{id}": 200,
        "POST /models/{id}/load": 403,
        "POST /models/{id}/unload": 403,
        "GET /models/{id}/logs": 403,
        "POST /reload": 403,
    }
    assert daemon.operations.calls == []


async def test_a_member_of_the_operators_group_administers():
    daemon = FakeDaemon()
    daemon.operations.finish.set()
    group = OPERATORS if os.geteuid() == 0 else os.getegid()
    async with daemon.served(Administrators(own_uid=owner(), group=group)) as path:
        found = await statuses(path, OPERATORS)
    assert set(found.values()) == {200}
    assert [call[0] for call in daemon.operations.calls] == ["load", "unload"]


async def test_the_daemons_own_user_administers():
    daemon = FakeDaemon()
    daemon.operations.finish.set()
    own = NOBODY if os.geteuid() == 0 else os.geteuid()
    async with daemon.served(Administrators(own_uid=own, group=None)) as path:
        assert set((await statuses(path)).values()) == {200}


async def test_a_connection_that_is_not_local_may_do_nothing():
    daemon = FakeDaemon()
    app = make_api(
        daemon.operations, logs=daemon.logs, reload=daemon.configuration.reload, version=""
    )
    runner = make_runner(app)
    await runner.setup()
    try:
        port = await listen_tcp(runner, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{port}/sparkd/v1/status"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "permission_denied"
    finally:
        await runner.cleanup()


def test_the_kernel_tells_user_group_and_supplementary_groups():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = credentials(ours)
    assert (peer.uid, peer.gid) == (os.geteuid(), os.getegid())
    assert peer.groups == frozenset(os.getgroups())


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        (Peer(uid=0, gid=0), True),
        (Peer(uid=990, gid=990), True),
        (Peer(uid=1000, gid=1000), False),
        (Peer(uid=1000, gid=77), True),
        (Peer(uid=1000, gid=1000, groups=frozenset({4, 77})), True),
        (Peer(uid=1000, gid=0, groups=frozenset({0})), False),
    ],
)
def test_root_the_daemon_and_its_group_administer(peer, may):
    assert Administrators(own_uid=990, group=77).include(peer) is may


def test_without_the_group_nobody_is_in_it():
    assert not Administrators(own_uid=990, group=None).include(Peer(uid=1000, gid=1000))


def test_every_route_that_changes_something_is_for_administrators():
    assert all(r.access is Access.ADMINISTER for r in ROUTES if r.method != "GET")
