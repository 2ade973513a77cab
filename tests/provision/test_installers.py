"""Where packages come from, and what is said when they do not come."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sparkd.provision.installers import (
    PackageSources,
    Pip,
    Uv,
    explain,
    find_installer,
    parse_pip_config,
    pip_sources,
)
from tests.provision.kit import FakeUv

PYTHON = Path("/venv/bin/python")
PINS = Path("/pins.txt")


def test_pips_configuration_is_read_from_all_its_sections():
    lines = (
        "global.index-url='https://mirror.example/simple'",
        "global.extra-index-url='https://a.example/simple https://b.example/simple'",
        "install.find-links='/wheels'",
        "global.find-links='/other'",
        ":env:.cert='/etc/ssl/own.pem'",
        "freeze.timeout='10'",
        "a line that is none of ours",
    )
    assert parse_pip_config(lines) == PackageSources(
        index="https://mirror.example/simple",
        extra_indexes=("https://a.example/simple", "https://b.example/simple"),
        find_links=("/wheels",),
        certificates="/etc/ssl/own.pem",
    )


def test_the_environment_wins_over_pips_files():
    lines = (":env:.index-url='https://env.example'", "global.index-url='https://file.example'")
    assert parse_pip_config(lines).index == "https://env.example"


def test_a_list_over_several_lines_of_pips_file_is_split():
    assert parse_pip_config([r"global.find-links='\n/a\n/b'"]).find_links == ("/a", "/b")


def test_this_machines_pip_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert pip_sources().find_links == (str(tmp_path),)


def test_uv_is_told_what_pip_is_configured_with():
    sources = PackageSources(index="https://i", extra_indexes=("https://x",), find_links=("/w",))
    argv = Uv(executable="/uv", sources=sources).install(PYTHON, PINS)
    text = " ".join(argv)
    assert text.startswith("/uv pip install --no-deps ")
    assert "--find-links /w --index https://x --default-index https://i" in text
    assert "--index-strategy unsafe-best-match" in text


def test_uv_with_a_fallback_index_looks_there_only():
    sources = PackageSources(index="https://i", find_links=("/w",))
    argv = Uv(executable="/uv", sources=sources).install(PYTHON, PINS, "https://fallback")
    assert argv[argv.index("--default-index") + 1] == "https://fallback"
    assert "/w" not in argv


def test_uv_without_any_index_uses_wheels_on_disk_only():
    sources = PackageSources(no_index=True, find_links=("/w",))
    argv = Uv(executable="/uv", sources=sources).install(PYTHON, PINS)
    assert "--no-index" in argv
    assert "--default-index" not in argv


def test_pip_installs_into_the_venv_without_dependencies():
    argv = Pip().install(PYTHON, PINS, "https://fallback")
    assert argv[:5] == [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    assert "--no-deps" in argv
    assert argv[-2:] == ["--index-url", "https://fallback"]


def test_uv_on_path_is_taken(uv: FakeUv):
    installer = find_installer()
    assert isinstance(installer, Uv)
    assert installer.executable == str(uv.home / "uv")


def test_pip_is_taken_where_uv_is_neither_there_nor_installable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert isinstance(find_installer(), Pip)


# What installers really printed (uv 0.13, pip 23 and 26).
OUTPUTS = (
    ("  cause: dns error\n  cause: failed to lookup address information", "name service"),
    ("  cause: Connection refused (os error 111)", "cannot be reached"),
    ("NewConnectionError: [Errno 111] Connection refused", "cannot be reached"),
    ("ReadTimeoutError: Read timed out.", "in time"),
    ("error: operation timed out", "in time"),
    ("SSLError: certificate verify failed: unable to get local issuer", "not trusted"),
    ("OSError: [Errno 28] No space left on device", "disk is full"),
    ("ERROR: No matching distribution found for torch==2.13.0+cpu", "does not have it"),
    ("there is no version of torch==2.13.0+cpu and you require", "does not have it"),
    ("has no wheels with a matching Python ABI tag (e.g., `cp313`)", "no build of it"),
    ("something nobody has seen yet", "something nobody has seen yet"),
    ("", "it said nothing"),
)


@pytest.mark.parametrize(("output", "cause"), OUTPUTS, ids=[cause for _, cause in OUTPUTS])
def test_an_installers_last_lines_become_one_sentence(output: str, cause: str):
    said, hint = explain(output.splitlines())
    assert cause in said
    assert hint
