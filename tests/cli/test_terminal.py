"""What a person at a terminal sees: colours, the moving line, and nothing that could harm it."""

from __future__ import annotations

import asyncio
import os
import pty
import signal

import pytest

from sparkd.cli.terminal import age, harmless


class Screen:
    """A pseudo-terminal, and all that was written to it."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.text = ""

    async def wait_for(self, text: str) -> None:
        """Returns when `text` was written; fails when the other side is closed first."""
        while text not in self.text:
            try:
                self.text += (await asyncio.to_thread(os.read, self._master, 4096)).decode()
            except OSError:  # EIO: the last writer has gone
                pytest.fail(f"{text!r} never came, but {self.text!r}")

    async def rest(self) -> str:
        """All of it, once every writer has gone."""
        try:
            while piece := await asyncio.to_thread(os.read, self._master, 4096):
                self.text += piece.decode()
        except OSError:
            pass
        return self.text

    def close_ours(self) -> None:
        os.close(self.slave)

    def close(self) -> None:
        os.close(self._master)


@pytest.fixture
def screen():
    one = Screen()
    yield one
    one.close()


async def test_status_on_a_terminal_has_colours(sparkctl, screen):
    async with sparkctl.running("status", stdout=screen.slave, env={"COLUMNS": "120"}) as process:
        screen.close_ours()
        assert "\x1b[32mready" in await screen.rest()
        assert await process.wait() == 0


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["no-color", "dumb"])
async def test_a_terminal_that_wants_none_gets_no_colours(sparkctl, screen, env):
    async with sparkctl.running("status", stdout=screen.slave, env=env) as process:
        screen.close_ours()
        seen = await screen.rest()
        assert await process.wait() == 0
    assert "ready" in seen
    assert "\x1b" not in seen


async def test_logs_on_a_terminal_lose_their_escape_sequences(sparkctl, daemon, screen):
    daemon.logs.lines = ["\x1b[2Jgone \x1b]0;title\x07 and \x9b31mred"]
    async with sparkctl.running("logs", "small", stdout=screen.slave) as process:
        screen.close_ours()
        seen = await screen.rest()
        assert await process.wait() == 0
    assert "\x1b" not in seen
    assert "\x07" not in seen
    assert "gone " in seen


async def test_load_on_a_terminal_shows_phase_seconds_and_estimate(sparkctl, daemon, screen):
    async with sparkctl.running("load", "gemma", stderr=screen.slave) as process:
        screen.close_ours()
        await screen.wait_for("loading gemma: loading weights 40%, 1s, about 30s left")
        daemon.operations.finish.set()
        out, _ = await process.communicate()
        seen = await screen.rest()
    assert out == b"gemma is ready after 1s\n"
    assert seen.endswith("\r\x1b[K"), "the moving line is wiped away at the end"


async def test_ctrl_c_wipes_the_moving_line_before_it_speaks(sparkctl, screen):
    async with sparkctl.running("load", "gemma", stderr=screen.slave) as process:
        screen.close_ours()
        await screen.wait_for("1s")
        process.send_signal(signal.SIGINT)
        seen = await screen.rest()
        assert await process.wait() == 130
    assert "\r\x1b[Ksparkctl: no longer waiting" in seen


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"), (0, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1min"), (3599, "59min"),
        (3600, "1h"), (86399, "23h"), (86400, "1d"), (9e6, "104d"),
    ],
)  # fmt: skip
def test_an_age_is_a_whole_number_of_one_unit(seconds, said):
    assert age(seconds) == said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – 日本\tx\ny", "plain – 日本\tx\ny"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("a\rb\x08c\x00d\x7fe\x85f", "abcdef"),
        ("\x1b]8;;http://x\x1b\\link", "]8;;http://x\\link"),
    ],
)
def test_control_characters_do_not_reach_a_terminal(text, shown):
    assert harmless(text) == shown
