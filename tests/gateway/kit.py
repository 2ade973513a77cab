"""A supervisor that does what a test tells it, and a gateway served as the daemon serves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import aiohttp

from sparkd.core.catalogue import (
    Catalogue,
    Device,
    LaunchSpec,
    Model,
    ModelId,
    Role,
    Runtime,
    RuntimeKind,
    Task,
)
from sparkd.core.fleet import Fleet
from sparkd.core.instance import InstanceId, Reason
from sparkd.core.memory import Pool
from sparkd.core.quantities import Bytes, Instant, Seconds
from sparkd.core.status import ModelState
from sparkd.errors import SparkdError
from sparkd.gateway.app import make_gateway
from sparkd.gateway.ports import Supervisor
from sparkd.http.runner import listen_tcp, make_runner
from sparkd.supervisor.lease import Grant, Progress
from sparkd.supervisor.ports import Upstream
from tests.scripted_upstream import ScriptedUpstream

RUNTIME = Runtime(
    name="r", kind=RuntimeKind.VENV, device=Device.CPU, root="/r", command=("/r/bin/vllm", "serve")
)


def make_model(name: str, task: Task = Task.GENERATE, aliases: tuple[str, ...] = ()) -> Model:
    launch = LaunchSpec(
        runtime=RUNTIME,
        weights="/secret/weights",
        served_names=(name, *aliases),
        task=task,
        max_model_len=2048,
    )
    return Model(
        id=ModelId(name),
        launch=launch,
        budget=Bytes(1 << 30),
        role=Role.NORMAL,
        aliases=aliases,
        description=f"the model {name}",
    )


MODELS = (
    make_model("tiny", aliases=("org/tiny", "Tiny-1")),
    make_model("other"),
    make_model("emb", Task.EMBED),
)


class FakeLease:
    """A lease whose grant, refusal, loss and revocation are the test's to give."""

    def __init__(self, supervisor: FakeSupervisor, model: Model):
        self.supervisor = supervisor
        self.model = model
        self.result: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self.left = asyncio.Event()
        self.revoke: Callable[[Reason], None] = lambda _: None
        self.waited = Seconds(0.0)

    async def __aenter__(self) -> Self:
        self.supervisor.leases.append(self)
        self.supervisor.asked.set()
        self.supervisor.on_lease(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.left.set()
        self.result.cancel()

    def grant(self) -> None:
        instance, path = self.supervisor.current
        self.result.set_result(
            Grant(
                instance=InstanceId(instance),
                model=self.model,
                upstream=Upstream(socket_path=path),
                cold=False,
            )
        )

    def refuse(self, error: SparkdError) -> None:
        self.result.set_exception(error)

    async def granted(self, within: float | None = None) -> Grant | None:
        if not self.result.done():
            await asyncio.wait([self.result], timeout=within)
        return self.result.result() if self.result.done() else None

    def progress(self) -> Progress:
        return Progress(
            state=ModelState.STARTING,
            phase="loading weights 40%",
            position=0,
            waited=Seconds(20.2),
            estimate=Seconds(14.1),
        )

    def on_revoke(self, callback: Callable[[Reason], None]) -> None:
        self.revoke = callback

    async def lost(self, within: float) -> bool:
        self.supervisor.questions += 1
        return self.supervisor.on_question(self.result.result().instance)


class FakeSupervisor:
    """Grants at once unless told otherwise, always the current instance."""

    def __init__(self, path: str, models: tuple[Model, ...] = MODELS):
        self.current = ("i-1", path)
        self.leases: list[FakeLease] = []
        self.asked = asyncio.Event()
        self.questions = 0  # how often somebody asked whether an instance is lost
        self.on_lease: Callable[[FakeLease], None] = FakeLease.grant
        self.on_question: Callable[[InstanceId], bool] = lambda _: False
        self.fleet = Fleet(
            catalogue=Catalogue(models),
            pool=Pool(limit=Bytes(1 << 40), reserve=Bytes(0)),
            boot="test",
        )

    def now(self) -> Instant:
        return Instant(asyncio.get_running_loop().time())

    def resolve(self, name: str) -> Model:
        return self.fleet.catalogue.resolve(name)

    def lease(self, model_id: ModelId) -> FakeLease:
        model = self.fleet.catalogue.get(model_id)
        assert model is not None
        return FakeLease(self, model)


class Rig:
    """A gateway on a port, its fake supervisor, one scripted upstream, and a client."""

    def __init__(
        self,
        port: int,
        supervisor: FakeSupervisor,
        upstream: ScriptedUpstream,
        client: aiohttp.ClientSession,
    ):
        self.port = port
        self.supervisor = supervisor
        self.upstream = upstream
        self.client = client

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def chat(self, **fields: Any) -> Any:
        """POSTs a chat request; use it as aiohttp's own context manager."""
        return self.client.post(
            self.url("/v1/chat/completions"), json={"model": "tiny", "messages": []} | fields
        )

    async def raw(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends bytes, and reads one answer to its end or the connection's."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
            return await read_answer(reader)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


@contextlib.asynccontextmanager
async def serving(supervisor: Supervisor, **options: Any) -> AsyncIterator[int]:
    """The gateway as the daemon runs it; yields its port."""
    runner = make_runner(
        make_gateway(supervisor, started_utc=1_700_000_000.5, **options), shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        yield await listen_tcp(runner, "127.0.0.1", 0)
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def rigged(path: str, **options: Any) -> AsyncIterator[Rig]:
    supervisor = FakeSupervisor(path)
    async with (
        ScriptedUpstream(path) as upstream,
        serving(supervisor, **options) as port,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client,
    ):
        yield Rig(port, supervisor, upstream, client)


def error_of(body: bytes | str) -> dict[str, Any]:
    """The OpenAI object's inside; fails when it is anything else."""
    inner = json.loads(body)["error"]
    assert {"message", "type", "param", "code"} <= set(inner)
    return dict(inner)
