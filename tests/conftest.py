"""What every test gets: real vLLM on demand, a loop that must not block, and an honest summary."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx

from tests import vllm_runtime
from tests.left_out import strict
from tests.vllm_runtime import prepared_vllm, runtime, tiny_models

__all__ = ["prepared_vllm", "runtime", "tiny_models"]

#: Directories whose async tests fail when sparkd blocks the loop.
GUARDED = {"supervisor", "gateway", "api", "host"}
#: Function, file, function in that file that may call it: it never waits for a disk.
ALLOWED: tuple[tuple[str, str, str], ...] = ()


@pytest.fixture(autouse=True)
def _loop_never_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call made by sparkd while a loop runs raises BlockingError where it is made."""
    directory = request.path.relative_to(vllm_runtime.CLONE / "tests").parts[0]
    if directory not in GUARDED or not inspect.iscoroutinefunction(request.function):
        yield
        return
    with blockbuster_ctx("sparkd") as guard:
        for call, file, function in ALLOWED:
            guard.functions[call].can_block_in(file, function)
        yield


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        vllm_runtime.prepare_if_used(session.items, session.config)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _left_out(session.config) and strict() and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the outermost: what it writes comes last
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    yield
    left_out = _left_out(config)
    if not left_out:
        return
    failure = strict()
    terminalreporter.section(
        "LEFT OUT" + (" (CI: a failure)" if failure else ""), sep="!", red=True
    )
    for reason, count in left_out.items():
        terminalreporter.line(f"{count} × {reason}", red=True, bold=True)


def _left_out(config: pytest.Config) -> Counter[str]:
    """Reasons of all skipped tests, with how often each was given."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in reports
        if isinstance(report.longrepr, tuple)
    )
