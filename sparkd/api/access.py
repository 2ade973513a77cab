"""Who speaks on the control socket, as the kernel tells it, and what they may do.

root, the daemon's own user and the group of operators administer; every other local user may read.
"""

from __future__ import annotations

import array
import grp
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from aiohttp import web

from sparkd.errors import PermissionDeniedError

OPERATORS = "sparkd"

#: Groups of the process that connected. Source: linux/include/uapi/asm-generic/socket.h (4.13 on).
_SO_PEERGROUPS = 59
#: What Python lets getsockopt return: 256 groups of 4 bytes.
_GETSOCKOPT_MAX = 1024
_UCRED = struct.Struct("3i")


class Access(StrEnum):
    """What a route asks of the one who calls it."""

    READ = "read"
    ADMINISTER = "administer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end, with the credentials it had when it connected."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


class _Socket(Protocol):
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrators:
    """Those who may change something."""

    own_uid: int = field(default_factory=os.geteuid)
    group: int | None = None

    @classmethod
    def of_this_machine(cls) -> Administrators:
        """Reads the user database once: a request must not wait for a directory server."""
        try:
            return cls(group=grp.getgrnam(OPERATORS).gr_gid)
        except KeyError:
            return cls()

    def include(self, peer: Peer) -> bool:
        if peer.uid in (0, self.own_uid):
            return True
        return self.group is not None and self.group in peer.groups | {peer.gid}


#: Raises PermissionDeniedError when the one who sent the request may not do this.
Gate = Callable[[web.Request, Access], None]


def gate_for(administrators: Administrators) -> Gate:
    """The gate of a unix socket: readers are let through, changes need an administrator."""

    def check(request: web.Request, access: Access) -> None:
        peer = peer_of(request)
        if access is Access.ADMINISTER and not administrators.include(peer):
            raise PermissionDeniedError(
                f"cannot let user {peer.uid} administer sparkd: only root and members of the "
                f"group '{OPERATORS}' may",
                hint=f"use sudo, or join the group '{OPERATORS}' and log in again",
            )

    return check


def peer_of(request: web.Request) -> Peer:
    sock = None if request.transport is None else request.transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        raise PermissionDeniedError("cannot tell who asks: this is not a local unix connection")
    return credentials(sock)


def credentials(sock: _Socket) -> Peer:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, gid = _UCRED.unpack(raw)
    return Peer(uid=uid, gid=gid, groups=_groups(sock))


def _groups(sock: _Socket) -> frozenset[int]:
    """Empty for a process in more than 256 groups: it must use sudo, which is the safe side."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GETSOCKOPT_MAX)
    except OSError:
        return frozenset()
    return frozenset(array.array("I", raw))
