"""How a face is served: one way to build the aiohttp runner, for the daemon and for every test.

Tests that built their own would test other defaults: aiohttp's test server does not cancel the
handler when its client goes. Also the two kinds of listening address.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from sparkd.errors import HostError
from sparkd.http.faults import FaultlessRunner

#: The longest request line and the longest header, in bytes.
MAX_LINE = 32 * 1024
#: How long an idle connection may stay: longer than the pools of common clients keep theirs, so
#: that it is the client who closes and no request meets a connection that is just being closed.
KEEP_ALIVE_SECONDS = 630.0


def make_runner(app: web.Application, *, shutdown_timeout: float = 1.0) -> web.AppRunner:
    """The runner of the daemon and of the tests; `setup()` and `cleanup()` are the caller's.

    `shutdown_timeout` bounds how long `cleanup()` waits for handlers before it cancels them.
    """
    return FaultlessRunner(
        app,
        shutdown_timeout=shutdown_timeout,
        access_log=None,
        auto_decompress=False,  # bodies are forwarded as bytes; a bomb is never unpacked here
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        lingering_time=5.0,  # a refused upload still reads its answer
    )


async def listen_tcp(runner: web.AppRunner, host: str, port: int) -> int:
    """Listens, and returns the port (0 asks for a free one)."""
    site = web.TCPSite(runner, host, port)
    before = len(runner.addresses)
    try:
        await site.start()
    except OSError as error:
        raise HostError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
            hint="another program has the port" if error.errno == errno.EADDRINUSE else None,
        ) from error
    return int(runner.addresses[before][1])


async def listen_unix(runner: web.AppRunner, path: str, mode: int) -> None:
    """Listens on a socket file that never exists with another mode than `mode`.

    A stale file is replaced; one that somebody listens on is an error. The runner's cleanup
    removes the file if it is still ours.
    """
    bound = await asyncio.to_thread(_bind, path, mode)
    try:
        await _UnixSite(runner, bound).start()
    except BaseException:
        bound.sock.close()
        raise


@dataclass(frozen=True, slots=True)
class _Bound:
    path: str
    sock: socket.socket
    inode: int


class _UnixSite(web.BaseSite):
    """Serves on a unix socket that is bound already."""

    __slots__ = ("_bound",)

    def __init__(self, runner: web.AppRunner, bound: _Bound):
        super().__init__(runner)
        self._bound = bound

    @property
    def name(self) -> str:
        return f"http://unix:{self._bound.path}:"

    async def start(self) -> None:
        await super().start()
        assert self._runner.server is not None  # BaseSite refuses a runner without one
        self._server = await asyncio.get_running_loop().create_unix_server(
            self._runner.server, sock=self._bound.sock, backlog=self._backlog
        )

    async def stop(self) -> None:
        await asyncio.to_thread(_unlink_if_ours, self._bound)
        await super().stop()


def _bind(path: str, mode: int) -> _Bound:
    _refuse_if_taken(path)
    # Bound under another name and renamed: nobody ever sees it with the wrong mode.
    unready = Path(f"{path}.{os.getpid()}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unready.unlink(missing_ok=True)
        sock.bind(str(unready))
        unready.chmod(mode)
        inode = unready.stat().st_ino
        sock.listen()
        unready.rename(path)
    except OSError as error:
        sock.close()
        raise HostError(f"cannot listen on {path}: {error.strerror or error}") from error
    sock.setblocking(False)
    return _Bound(path, sock, inode)


def _refuse_if_taken(path: str) -> None:
    """Raises unless nothing is there, or a socket that nobody listens on."""
    try:
        is_socket = stat.S_ISSOCK(Path(path).lstat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"cannot listen on {path}: {error.strerror}") from error
    if not is_socket:
        raise HostError(f"cannot listen on {path}: it is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except OSError as error:
            raise HostError(f"cannot listen on {path}: {error.strerror}") from error
    raise HostError(f"cannot listen on {path}: somebody does", hint="is another sparkd running?")


def _unlink_if_ours(bound: _Bound) -> None:
    path = Path(bound.path)
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == bound.inode:
            path.unlink()
