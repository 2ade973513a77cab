"""The daemon as a child of `make run`: started, watched, its log shown, stopped.

It never outlives this process: the kernel sends it SIGTERM when we die, however that happens. A
terminal's Ctrl-C does not reach it (it has its own session), so that its end is ours to decide.
"""

from __future__ import annotations

import ctypes
import errno
import http.client
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import psutil

from sparkd.errors import ProvisionError
from sparkd.provision.commands import TAIL_LINES
from sparkd.provision.progress import Progress

#: Between two looks at a daemon that is starting, in seconds.
LOOK_AGAIN = 0.05
#: A daemon that does not listen after this many seconds never will.
START_LIMIT = 30.0
_PR_SET_PDEATHSIG = 1  # Source: prctl(2), Linux


class ForegroundDaemon:
    """`python -m sparkd serve`, from the start to the end. Used in a `with` block."""

    def __init__(self, config: Path, log: Path, progress: Progress, hold: int):
        self._progress = progress
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._log = log.open("w", encoding="utf-8", errors="replace")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "sparkd", "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            # The next `make run` waits for this lock, also when only the daemon is left.
            pass_fds=(hold,),
            preexec_fn=die_with_parent(),  # noqa: PLW1509  # no thread of ours runs yet
        )
        self._reader = threading.Thread(target=self._show, name="daemon log", daemon=True)
        self._reader.start()

    def __enter__(self) -> ForegroundDaemon:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait_listening(self, port: int) -> None:
        """Returns when /healthz answers. Raises ProvisionError when the daemon ends instead."""
        for _ in range(int(START_LIMIT / LOOK_AGAIN)):
            if self._ended_within(LOOK_AGAIN):
                raise self._died()
            if _healthy(port):
                return
        raise ProvisionError(
            f"cannot reach the daemon: it did not listen within {START_LIMIT:.0f} s"
        )

    def wait_end(self) -> None:
        """Returns never by itself: raises ProvisionError when the daemon ends unasked."""
        self._child.wait()
        raise self._died()

    def stop(self) -> None:
        """SIGTERM, and waits for the engines to be gone. Ctrl-C meanwhile kills at once."""
        try:
            if self._child.poll() is None:
                self._progress.line("\nstopping the models and the daemon (Ctrl-C kills them)")
                self._child.terminate()
            self._child.wait()
        except KeyboardInterrupt:
            self._progress.line("killing the daemon")
            self._child.kill()
            self._child.wait()
        self._reader.join(timeout=2.0)
        if self._child.stdout and not self._reader.is_alive():
            self._child.stdout.close()
        self._log.close()

    def _ended_within(self, seconds: float) -> bool:
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _died(self) -> ProvisionError:
        self._reader.join(timeout=2.0)
        last = self._tail[-1] if self._tail else "it said nothing"
        return ProvisionError(
            f"the daemon ended with status {self._child.returncode}: {last}",
            hint=f"its log is {self._log.name}",
        )

    def _show(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            text = line.rstrip()
            self._tail.append(text)
            self._log.write(text + "\n")
            self._log.flush()
            self._progress.line(f"    {text}", style="dim")


def die_with_parent() -> Callable[[], None]:
    """To be called in a child: SIGTERM when its parent dies."""
    prctl = ctypes.CDLL(None).prctl  # found before the fork: the child must not take locks

    def set_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return set_signal


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def require_port(port: int) -> None:
    """Raises ProvisionError that names who has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise _port_refused(port, error) from None


def _port_refused(port: int, error: OSError) -> ProvisionError:
    other = port + 1 if port < 65535 else 8009
    hint = f"end it, or use another port: SPARKD_PORT={other} make run"
    if error.errno == errno.EADDRINUSE:
        why = f"{_port_owner(port)} has it"
    else:
        why, hint = (
            str(error.strerror),
            f"use another port: SPARKD_PORT={max(other, 8010)} make run",
        )
    return ProvisionError(f"cannot listen on 127.0.0.1:{port}: {why}", hint=hint)


def _port_owner(port: int) -> str:
    """As far as this user may see it."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                process = psutil.Process(connection.pid) if connection.pid else None
                if process:
                    return f"process {process.pid} ({' '.join(process.cmdline())[:80]})"
    except psutil.Error:
        pass
    return "another program"
