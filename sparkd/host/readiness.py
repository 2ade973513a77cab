"""When can an engine serve? Its `/health`, then the smallest request that makes it compute."""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from sparkd.core.catalogue import Model
from sparkd.core.engine import HEALTH_PATH, Probe, probe_of
from sparkd.supervisor.ports import Upstream

_log = logging.getLogger(__name__)

_INTERVAL = 0.1  # s
_HEALTH_LIMIT = 5.0  # s; it answers in a millisecond or hangs
_PROBE_LIMIT = 300.0  # s; the first request may compile kernels
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
_NOT_YET = (aiohttp.ClientError, OSError, TimeoutError)


class HttpReadiness:
    """Satisfies `sparkd.supervisor.ports.Readiness`."""

    async def wait_ready(self, upstream: Upstream, model: Model) -> None:
        connector = aiohttp.UnixConnector(path=upstream.socket_path)
        async with aiohttp.ClientSession(
            "http://engine", connector=connector, timeout=_NO_TIMEOUT
        ) as session:
            probe = probe_of(model.launch)
            # No event tells that a socket begins to listen, so this asks.
            while not (await _healthy(session) and await _computes(session, probe, model)):  # noqa: ASYNC110
                await asyncio.sleep(_INTERVAL)


async def _healthy(session: aiohttp.ClientSession) -> bool:
    try:
        async with asyncio.timeout(_HEALTH_LIMIT), session.get(HEALTH_PATH) as answer:
            return answer.status == 200
    except _NOT_YET:
        return False


async def _computes(session: aiohttp.ClientSession, probe: Probe, model: Model) -> bool:
    """A refusal of this very request is an answer of a working engine: others may go well."""
    try:
        async with (
            asyncio.timeout(_PROBE_LIMIT),
            session.post(probe.path, json=probe.body) as answer,
        ):
            text = await answer.text(errors="replace")
    except _NOT_YET as error:
        _log.info("model %s does not answer its first request yet: %r", model.id, error)
        return False
    if 400 <= answer.status < 500:
        _log.warning(
            "model %s refuses %s (status %d: %.200s); is its `task` right?",
            model.id, probe.path, answer.status, text,
        )  # fmt: skip
    return answer.status < 500
