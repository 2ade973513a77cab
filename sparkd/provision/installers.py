"""The program that puts pinned packages into a venv: uv when it can be had, else pip.

Both look where pip is configured to look (its files and PIP_* variables), which uv alone would not.
Knows nothing about vLLM: which packages, and in which order, is `sparkd.provision.runtimes`.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sparkd.provision.commands import CommandFailedError, run_command


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSources:
    """Where pip is configured to look for packages. None and empty: its own default."""

    index: str | None = None
    extra_indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    certificates: str | None = None


class Installer(Protocol):
    """Installs exact pins, without their dependencies."""

    @property
    def name(self) -> str: ...

    @property
    def env(self) -> Mapping[str, str]: ...

    def install(self, python: Path, requirements: Path, index: str | None = None) -> list[str]:
        """The command line. `index` replaces what is configured."""
        ...


@dataclass(frozen=True, slots=True)
class Pip:
    """pip reads its own configuration, so it is told nothing about sources."""

    name: str = "pip"

    @property
    def env(self) -> Mapping[str, str]:
        return {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}

    def install(self, python: Path, requirements: Path, index: str | None = None) -> list[str]:
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        argv = [*pip, "install", "--no-deps", "--progress-bar", "off", "-r", str(requirements)]
        return [*argv, "--index-url", index] if index else argv


@dataclass(frozen=True, slots=True, kw_only=True)
class Uv:
    """uv is told what pip is configured with."""

    executable: str
    sources: PackageSources
    name: str = "uv"

    @property
    def env(self) -> Mapping[str, str]:
        """Variables of uv itself win over pip's configuration."""
        env = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
        if self.sources.certificates and "SSL_CERT_FILE" not in os.environ:
            env["SSL_CERT_FILE"] = self.sources.certificates
        return env

    def install(self, python: Path, requirements: Path, index: str | None = None) -> list[str]:
        # Bytecode now: an engine's user cannot write it later into a directory it may only read.
        argv = [self.executable, "pip", "install", "--no-deps", "--compile-bytecode", "--no-config"]
        where = ["--default-index", index] if index else self.source_arguments()
        return [*argv, "--python", str(python), *where, "-r", str(requirements)]

    def source_arguments(self) -> list[str]:
        sources = self.sources
        argv = [part for place in sources.find_links for part in ("--find-links", place)]
        if sources.no_index:
            return [*argv, "--no-index"]
        argv += [part for url in sources.extra_indexes for part in ("--index", url)]
        if sources.index:
            argv += ["--default-index", sources.index]
        # pip takes a pin from whichever index has it; uv by default only from the first that
        # knows the package's name.
        return [*argv, "--index-strategy", "unsafe-best-match"]


def find_installer() -> Installer:
    """Takes uv from PATH, from this venv, or installed into it now; pip when there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = shutil.which("uv") or (str(beside) if beside.exists() else None) or _install_uv(beside)
    return Uv(executable=found, sources=pip_sources()) if found else Pip()


def _install_uv(beside: Path) -> str | None:
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1", "uv"]
    try:
        run_command(argv, env=Pip().env)
    except (CommandFailedError, OSError):
        return None  # pip alone will do, and says what is wrong if it will not
    return str(beside) if beside.exists() else None


def pip_sources() -> PackageSources:
    """What `pip config list` says; the defaults if this Python has no pip to ask."""
    try:
        lines = _config_lines()
    except (CommandFailedError, OSError):
        return PackageSources()
    return parse_pip_config(lines)


def _config_lines() -> tuple[str, ...]:
    lines: list[str] = []
    run_command([sys.executable, "-m", "pip", "config", "list"], on_line=lines.append)
    return tuple(lines)


def parse_pip_config(lines: Iterable[str]) -> PackageSources:
    """Reads lines such as `global.find-links='/a /b'`. Later sections win over earlier ones.

    Source: pip 26, docs "Configuration": environment over the command's section over `global`.
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in lines:
        found = re.fullmatch(r"(global|install|:env:)\.([a-z-]+)=(.*)", line.strip())
        if found:
            sections[found[1]][found[2].strip("-")] = _unquoted(found[3])
    # An environment key is listed as `:env:.find-links`.
    merged = {**sections["global"], **sections["install"], **sections[":env:"]}
    return PackageSources(
        index=merged.get("index-url"),
        extra_indexes=_words(merged.get("extra-index-url", "")),
        find_links=_words(merged.get("find-links", "")),
        no_index=merged.get("no-index", "").lower() in {"1", "true", "yes", "on"},
        certificates=merged.get("cert"),
    )


def _unquoted(text: str) -> str:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, str) else text


def _words(text: str) -> tuple[str, ...]:
    return tuple(shlex.split(text))


#: What went wrong, as installers put it, and what to do about it. First match counts.
_CAUSES = (
    (
        r"no space left on device",
        "the disk is full",
        "free some space and run the same command again",
    ),
    (
        r"requires-python|requires a different python|no wheels with a matching python",
        "no build of it for this Python",
        "use Python 3.11, 3.12 or 3.13",
    ),
    (
        r"dns error|name or service not known|name resolution|nodename nor servname",
        "the network or its name service cannot be reached",
        "check the network, or point pip at a mirror (PIP_INDEX_URL)",
    ),
    (
        r"connection refused|network is unreachable|no route to host|connection reset",
        "the package index cannot be reached",
        "check the network, or point pip at a mirror (PIP_INDEX_URL)",
    ),
    (
        r"timed? ?out",
        "the package index did not answer in time",
        "check the network and run the same command again",
    ),
    (
        r"certificate",
        "the package index's certificate is not trusted here",
        "behind a proxy with its own certificate: set PIP_CERT to its file",
    ),
    (
        r"no matching distribution|there is no version of|was not found in the|no solution found",
        "the package index does not have it",
        "is PIP_INDEX_URL a complete mirror?",
    ),
)


def explain(tail: Iterable[str]) -> tuple[str, str]:
    """The cause an installer's last lines name, and a hint; its last line when none is known."""
    lines = [line for line in tail if line]
    text = "\n".join(lines).lower()
    for pattern, cause, hint in _CAUSES:
        if re.search(pattern, text):
            return cause, hint
    return (lines[-1].strip() if lines else "it said nothing"), "its last lines are above"
