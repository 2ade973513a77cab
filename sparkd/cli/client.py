"""The control API over its unix socket, for a command that lives for a fraction of a second.

Standard library only: importing aiohttp would cost more than all the rest of `sparkctl status`.
"""

from __future__ import annotations

import http.client
import io
import json
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

from sparkd.cli.failures import CommandError, refused, unreachable

DEFAULT_SOCKET = "/run/sparkd/control.sock"
PREFIX = "/sparkd/v1"

#: What the daemon answers at once may take this long on a busy machine.
ANSWER_SECONDS = 10.0
#: How often someone who waits is told how far it is.
TICK_SECONDS = 1.0

_SERVICE_HINT = "see: systemctl status sparkd"
_LOST_HINT = "it may have been stopped; see: journalctl -u sparkd"


class Client:
    """Speaks to one daemon. Every failure is a CommandError with its exit code."""

    def __init__(self, socket_path: str):
        self._path = socket_path

    def get(self, path: str, *, timeout: float = ANSWER_SECONDS) -> object:
        with self._talk(timeout) as connection:
            connection.request("GET", PREFIX + path)
            return _decoded(connection.getresponse())

    def post(
        self, path: str, body: Mapping[str, bool], *, tick: Callable[[], None] | None = None
    ) -> object:
        """Waits as long as the daemon does; `tick` is called once a second meanwhile."""
        with self._talk(None) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", PREFIX + path, json.dumps(body), headers)
            while tick and not select.select([connection.sock], [], [], TICK_SECONDS)[0]:
                tick()
            return _decoded(connection.getresponse())

    def lines(self, path: str, *, follow: bool) -> Iterator[str]:
        """A text answer line by line, without the newlines."""
        with self._talk(None if follow else ANSWER_SECONDS) as connection:
            connection.request("GET", PREFIX + path)
            response = connection.getresponse()
            if response.status >= http.client.BAD_REQUEST:
                _decoded(response)
            # newline="\n": the carriage returns of progress bars are not ends of lines.
            with io.TextIOWrapper(response, "utf-8", "replace", newline="\n") as text:
                for line in text:
                    yield line.rstrip("\n")

    @contextmanager
    def _talk(self, timeout: float | None) -> Iterator[_UnixConnection]:
        connection = _UnixConnection(self._path, timeout)
        try:
            self._connect(connection)
            yield connection
        except TimeoutError as error:
            raise unreachable(
                f"cannot get an answer from sparkd at {self._path}: "
                f"none within {ANSWER_SECONDS:.0f}s",
                _SERVICE_HINT,
            ) from error
        except (ConnectionError, http.client.IncompleteRead) as error:
            raise unreachable(
                f"cannot go on: sparkd at {self._path} closed the connection in mid-answer",
                _LOST_HINT,
            ) from error
        except (http.client.HTTPException, ValueError) as error:
            raise unreachable(
                f"cannot understand what answers at {self._path}: is it sparkd?", _SERVICE_HINT
            ) from error
        finally:
            connection.close()

    def _connect(self, connection: _UnixConnection) -> None:
        try:
            connection.connect()
        except OSError as error:
            why, hint = _WHY.get(type(error), (str(error), _SERVICE_HINT))
            raise unreachable(f"cannot reach sparkd at {self._path}: {why}", hint) from error


_WHY: dict[type[OSError], tuple[str, str]] = {
    FileNotFoundError: (
        "there is no such socket",
        "start the daemon with 'systemctl start sparkd', or name its socket with --socket",
    ),
    PermissionError: (
        "permission denied",
        "use sudo, or join the group 'sparkd' and log in again",
    ),
    ConnectionRefusedError: (
        "nobody listens on the socket",
        "the daemon has died or was stopped; start it with 'systemctl start sparkd'",
    ),
}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float | None):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def model_path(model: str, verb: str = "") -> str:
    """An id or alias may contain any character, a slash too."""
    return f"/models/{quote(model, safe='')}{verb}"


def _decoded(response: http.client.HTTPResponse) -> object:
    """The JSON of an answer. Raises the CommandError that an error object stands for."""
    body = json.loads(response.read())
    if response.status < http.client.BAD_REQUEST:
        return body
    raise _refusal(body, response)


def _refusal(body: object, response: http.client.HTTPResponse) -> CommandError:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        raise http.client.HTTPException("an error without an error object")
    return refused(error, response.headers.get("Retry-After"))
