"""Bytes beyond ASCII in a head: with aiohttp's C parser and with its Python one alike."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.kit import rigged

CLONE = Path(__file__).parent.parent.parent


async def main(path: str) -> None:
    """Prints what became of each request."""
    async with rigged(path) as rig:
        for target, header in (("", b"caf\xe9"), ("", "日本".encode()), ("?a=\udcff", b"x")):
            line = f"POST /v1/tiny/completions{target} HTTP/1.1\r\n"
            status, _, _ = await rig.raw(
                line.encode(errors="surrogateescape")
                + b"Host: localhost\r\nX-Title: "
                + header
                + b"\r\n"
                b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            )
            asked = len(rig.supervisor.leases)
            sys.stdout.write(f"{status} {asked} {len(rig.upstream.exchanges)}\n")


@pytest.mark.parametrize("without_extensions", ["", "1"])
async def test_a_header_passes_and_a_query_is_refused_before_anything_is_scheduled(
    tmp_path: Path, without_extensions: str
):
    call = f"asyncio.run(test.main({str(tmp_path / 's')!r}))"
    code = f"import asyncio, tests.gateway.test_odd_bytes as test; {call}"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", code,
        cwd=CLONE, env={**os.environ, "AIOHTTP_NO_EXTENSIONS": without_extensions},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    assert out.decode().splitlines() == ["200 1 1", "200 2 2", "400 2 2"]
    assert b"Traceback" not in err
