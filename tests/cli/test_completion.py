"""Tab completion: the scripts, and the names that the daemon is asked for."""

from __future__ import annotations

import asyncio

import pytest

from tests.cli.conftest import Sparkctl


@pytest.mark.parametrize(
    ("shell", "mark"),
    [("bash", "complete -o default -F"), ("zsh", "#compdef sparkctl"), ("fish", "complete ")],
)
async def test_the_completion_script_of_a_shell_is_printed(sparkctl, shell, mark):
    ended = await sparkctl(
        "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert ended.code == 0
    assert mark in ended.out
    assert "sparkctl" in ended.out


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("sparkctl load q", {"qwen3-8b"}),
        ("sparkctl unload ", {"qwen3-8b", "Qwen/Qwen3-8B", "small", "gemma", "broken", "cold-one"}),
        ("sparkctl logs Qwen/", {"Qwen/Qwen3-8B"}),
        ("sparkctl load nothing", set()),
        ("sparkctl re", {"reload"}),
    ],
)
async def test_names_of_models_are_completed(sparkctl, typed, names):
    assert await completed(sparkctl, typed) == names


async def test_completion_asks_the_socket_that_stands_on_the_command_line(sparkctl, daemon):
    elsewhere = Sparkctl("/nowhere")
    assert await completed(elsewhere, f"sparkctl --socket {daemon.path} load ge") == {"gemma"}


async def test_completion_without_a_daemon_is_silent():
    assert await completed(Sparkctl("/nowhere"), "sparkctl load q") == set()


async def test_completion_gives_a_daemon_that_hangs_half_a_second(directory):
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(hang, f"{directory}/s"):
        async with asyncio.timeout(5):
            assert await completed(Sparkctl(f"{directory}/s"), "sparkctl load q") == set()


async def completed(sparkctl: Sparkctl, typed: str) -> set[str]:
    """What bash is offered. Its protocol: words, and the index of the one being typed."""
    count = len(typed.split(" "))
    ended = await sparkctl(
        _SPARKCTL_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(count - 1)
    )
    assert (ended.code, ended.err) == (0, "")
    return set(ended.out.split())
