"""The daemon's side of one engine behind its shim: what it hears of it, tells it, reads from it.

Starts nothing and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from sparkd.core.quantities import Seconds
from sparkd.host import pidfds, remains
from sparkd.host.logs import LineSplitter
from sparkd.supervisor.ports import EngineExit, LineSink, Upstream

_log = logging.getLogger(__name__)

_TAIL_LINES = 200
_READ = 16 * 1024  # the loop serves others after each: a flood of short lines takes 50 ms then
_DRAIN_READS = 17  # what the pipe can hold; more comes only from who still lives
#: How EngineCore's lines begin: it exists, and can be watched. Source: vLLM 0.32.0.
_CORE_SPEAKS = "(EngineCore pid="
_CORE_CONFESSES = "EngineCore failed to start"
#: s. While it starts, an API server that lost EngineCore ends too, most often within 1 s, on a busy
#: machine after 5 s and more. If EngineCore was killed nobody shall wait for that; if it said
#: itself that it failed, the API server's exit status belongs to the story.
_LAST_WORDS, _LAST_WORDS_AFTER_CONFESSION = 1.5, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawned:
    """A shim that runs, with the daemon's ends of its channels."""

    shim: subprocess.Popen[bytes]
    control: socket.socket
    output: int
    directory: Path
    cgroup: Path | None


def socket_in(directory: Path) -> Path:
    """Where the engine of this directory listens."""
    return directory / "s"


class ProcessEngine:
    """Satisfies `sparkd.supervisor.ports.Engine`: the daemon's side of one shim."""

    def __init__(self, spawned: Spawned, sink: LineSink):
        loop = asyncio.get_running_loop()
        self._spawned = spawned
        self._sink = sink
        self._splitter = LineSplitter()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._heard = b""
        self._started: asyncio.Future[int] = loop.create_future()
        self._lost: asyncio.Future[EngineExit] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._vital = pidfds.VitalWatch(self._on_vital_death)
        self._vital_found = False
        self._searches = 0  # under way
        self._core_confessed = False
        self._is_ready = False
        self._output_open = True
        self._control_open = True
        self._said_gone = False
        loop.add_reader(spawned.control.fileno(), self._listen)
        loop.add_reader(spawned.output, self._read_output)

    @property
    def upstream(self) -> Upstream:
        return Upstream(socket_path=str(socket_in(self._spawned.directory)))

    @property
    def main_pid(self) -> int:
        """The API server's; only its shim may signal it."""
        return self._started.result()

    @property
    def shim_pid(self) -> int:
        return self._spawned.shim.pid

    async def wait_started(self) -> int:
        """The pid of the engine's main process. Raises OSError when it could not be executed."""
        return await asyncio.shield(self._started)

    async def wait_lost(self) -> EngineExit:
        return await asyncio.shield(self._lost)

    async def wait_gone(self) -> None:
        await asyncio.shield(self.gone)

    def watch_vital(self) -> None:
        self._tell("ready")
        self._is_ready = True
        self._seek_vital()

    def stop(self, grace: Seconds) -> None:
        # While it stops, EngineCore may end before the API server: that is no loss.
        self._vital.close()
        self._tell(f"stop {grace:.3f}")
        if self._control_open:  # so it is not reaped yet
            with contextlib.suppress(ProcessLookupError):
                # It cannot hear while somebody has stopped it.
                os.kill(self.shim_pid, signal.SIGCONT)

    def log_tail(self) -> tuple[str, ...]:
        return tuple(self._tail)

    def _tell(self, text: str) -> None:
        if self._control_open:
            with contextlib.suppress(OSError):  # it ends by itself; `_listen` hears of it
                self._spawned.control.send(text.encode() + b"\n")

    def _listen(self) -> None:
        try:
            data = self._spawned.control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            self._hear(*line.decode().partition(" ")[::2])
        if not data:
            self._on_shim_ended()

    def _hear(self, word: str, argument: str) -> None:
        match word:
            case "started":
                self._started.set_result(int(argument))
            case "failed":
                number = int(argument)
                self._started.set_exception(OSError(number, os.strerror(number)))
            case "exited":
                self._lose(EngineExit(exit_status=int(argument)))
            case "signalled":
                self._lose(EngineExit(signal=int(argument)))
            case "gone":
                self._said_gone = True
            case _:
                pass

    def _on_shim_ended(self) -> None:
        """The last thing heard of it, whether it had done its work or was killed."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._spawned.control.fileno())
        self._spawned.control.close()
        self._control_open = False
        self._vital.close()
        if not self._started.done():
            self._started.set_exception(OSError(0, f"its shim (pid {self.shim_pid}) ended"))
        self._lose(EngineExit(note=f"the shim (pid {self.shim_pid}) ended"))
        finishing = loop.run_in_executor(None, self._finish)
        finishing.add_done_callback(self._on_finished)

    def _finish(self) -> None:
        spawned = self._spawned
        try:
            remains.finish(
                self.shim_pid, spawned.directory, spawned.cgroup, said_gone=self._said_gone
            )
        finally:
            spawned.shim.wait()

    def _on_finished(self, done: asyncio.Future[None]) -> None:
        self._drain_output()
        self._close_output()
        if error := done.exception():
            _log.error("cannot clean up %s", self._spawned.directory, exc_info=error)
        self.gone.set_result(None)

    def _seek_vital(self) -> None:
        self._searches += 1
        loop = asyncio.get_running_loop()
        looking = loop.run_in_executor(None, pidfds.find_vital, self.shim_pid)
        looking.add_done_callback(self._on_vital_found)

    def _on_vital_found(self, done: asyncio.Future[list[pidfds.Watched]]) -> None:
        self._searches -= 1
        if error := done.exception():
            _log.warning("cannot watch the processes of shim %d: %s", self.shim_pid, error)
        found = [] if error else done.result()
        self._vital_found = bool(found)  # else its next line is another occasion
        self._vital.add(found)

    def _on_vital_death(self, dead: pidfds.Watched) -> None:
        how = EngineExit(note=f"{dead.title} (pid {dead.pid}) ended")
        if self._is_ready:
            self._give_up(how)
            return
        self._drain_output()
        within = _LAST_WORDS_AFTER_CONFESSION if self._core_confessed else _LAST_WORDS
        asyncio.get_running_loop().call_later(within, self._give_up, how)

    def _give_up(self, how: EngineExit) -> None:
        """It is of no use any more, whatever its API server still does."""
        self._lose(how)
        self.stop(Seconds(0))

    def _lose(self, how: EngineExit) -> None:
        if not self._lost.done():
            self._drain_output()  # its last words explain it, and were written before it ended
            self._lost.set_result(how)
            self._vital.close()

    def _read_output(self) -> bool:
        """False when there is nothing more for now."""
        try:
            data = os.read(self._spawned.output, _READ)
        except BlockingIOError:
            return False
        self._take(self._splitter.feed(data) if data else self._splitter.end())
        if not data:
            self._close_output()
        return bool(data)

    def _drain_output(self) -> None:
        for _ in range(_DRAIN_READS):
            if not self._output_open or not self._read_output():
                return

    def _close_output(self) -> None:
        if self._output_open:
            self._output_open = False
            asyncio.get_running_loop().remove_reader(self._spawned.output)
            os.close(self._spawned.output)

    def _take(self, lines: list[str]) -> None:
        for line in lines:
            self._tail.append(line)
            self._sink(line)
            if line.startswith(_CORE_SPEAKS):
                self._core_confessed |= _CORE_CONFESSES in line
                if not self._vital_found and not self._searches and self._control_open:
                    self._seek_vital()
