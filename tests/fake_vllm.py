"""A program with the surface of `vllm serve`: its phases, routes, processes, and ways to fail.

    python tests/fake_vllm.py serve MODEL --uds PATH --served-model-name NAME ... [--fake-... ...]

Standard library only and one file, so that it runs by path with any Python; therefore longer than
other modules. What it prints, answers and leaves behind is copied from vLLM 0.32.0 on a CPU.
Every behaviour is a flag, so that a model's `args` choose it; see `--help`. A request may override
some of them with fields `fake_token_delay`, `fake_stall_after`, `fake_crash_after_chunks`,
`fake_crash_after_bytes` (whole body as sent, framing not counted) and `fake_tokens`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

ENGINE_EXIT_AFTER = 1.2  # s from the death of EngineCore to exit 0, with traffic; 5 s without


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--uds")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--kv-cache-memory-bytes")
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--dtype")
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)

    fake = parser.add_argument_group("what this fake does")
    fake.add_argument("--fake-journal", help="append what happens as JSON lines to this file")
    fake.add_argument("--fake-start-seconds", type=float, default=0.0)
    fake.add_argument("--fake-task", choices=["generate", "embed", "score"], default="generate")
    fake.add_argument("--fake-tokens", type=int, default=16, help="without max_tokens")
    fake.add_argument("--fake-token-delay", type=float, default=0.0)
    fake.add_argument("--fake-stall-after", type=int, help="no byte after so many chunks")
    fake.add_argument("--fake-crash-after-chunks", type=int, help="SIGKILL to itself then")
    fake.add_argument("--fake-crash-after-bytes", type=int, help="of an answer's body")
    fake.add_argument("--fake-answer-status", type=int, help="refuse all requests but probes")
    fake.add_argument("--fake-die-in-start", metavar="TEXT", help="print this and exit")
    fake.add_argument("--fake-exit-status", type=int, default=1)
    fake.add_argument("--fake-never-ready", action="store_true", help="hang while starting")
    fake.add_argument("--fake-exit-after", type=float, help="exit 0 so long after being ready")
    fake.add_argument("--fake-ignore-sigterm", action="store_true")
    fake.add_argument("--fake-swallow-sigterm", action="store_true", help="while starting")
    fake.add_argument("--fake-stop-seconds", type=float, default=0.0, help="SIGTERM to exit")
    fake.add_argument("--fake-detach", type=int, default=0, help="double-forked descendants")
    fake.add_argument("--fake-workers", type=int, default=0, help="children of EngineCore")
    fake.add_argument("--fake-memory", type=int, default=0, help="bytes EngineCore touches")
    fake.add_argument("--fake-shm", action="store_true", help="leave files in /dev/shm")
    fake.add_argument("--fake-print-seconds", type=float, default=0.0, help="flood the log")
    return parser.parse_args(argv)


# --- processes -------------------------------------------------------------------------------


def set_title(title: str) -> None:
    """What `setproctitle` does: writes over the memory of argv, which /proc/PID/cmdline shows."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end: proc(5), 48 and 49
    size = end - start
    ctypes.memmove(start, title.encode()[: size - 1].ljust(size, b"\0"), size)
    ctypes.CDLL(None).prctl(15, title.encode()[:15], 0, 0, 0)  # PR_SET_NAME


def fork_engine(options: argparse.Namespace) -> int:
    """EngineCore: holds the memory and outlives a killed API server, as the real one does."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            run_engine(options, write)
        os._exit(1)
    os.close(write)
    os.read(read, 1)  # EngineCore is up
    os.close(read)
    return pid


def run_engine(options: argparse.Namespace, up: int) -> None:
    set_title("VLLM::EngineCore")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for rank in range(options.fake_workers):
        if os.fork() == 0:
            set_title(f"VLLM::Worker_TP{rank}")
            signal.pause()
            os._exit(0)
    for _ in range(options.fake_detach):
        detach()
    kept = [claim(options.fake_memory)] if options.fake_memory else []
    kept += leave_shared_memory() if options.fake_shm else []
    leave_temporary_files()
    os.write(up, b"1")
    while True:
        signal.pause()


def detach() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        os._exit(0)
    os.wait()


def claim(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size)
    for offset in range(0, size, mmap.PAGESIZE):
        memory[offset] = 1
    return memory


def leave_shared_memory() -> list[mmap.mmap]:
    ring = map_shared(f"psm_fake{os.getpid()}")
    # glibc makes a semaphore under another name: its maker maps `sem.fake... (deleted)`.
    maker = Path(f"/dev/shm/sem.fake{os.getpid()}")
    semaphore = map_shared(maker.name)
    Path(f"/dev/shm/sem.mp-fake{os.getpid()}").hardlink_to(maker)
    maker.unlink()
    return [ring, semaphore]


def map_shared(name: str) -> mmap.mmap:
    fd = os.open(f"/dev/shm/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(fd, mmap.PAGESIZE)
    memory = mmap.mmap(fd, mmap.PAGESIZE)
    os.close(fd)
    return memory


def leave_temporary_files() -> None:
    """Every exit of vLLM leaves ZeroMQ sockets and a rendezvous file."""
    directory = os.environ.get("TMPDIR", "/tmp")
    for name in ("2d1f9466-3fc9-4873-9033-b9ba88c288f8", "60bde5d8-2b97-4c12-825a-a317434fb989"):
        left = socket.socket(socket.AF_UNIX)
        left.bind(f"{directory}/{name}")
    Path(directory, f"vllm_dist_{os.getpid():x}").write_text("rendezvous")


# --- what happened ---------------------------------------------------------------------------


class Journal:
    """JSON lines for the tests: started, ready, request, finished, aborted, sigterm, exit."""

    def __init__(self, path: str | None, name: str):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._fd = os.open(path, flags, 0o666) if path else None
        self._name = name

    def write(self, event: str, **more: object) -> None:
        if self._fd is not None:
            entry = {"event": event, "model": self._name, "pid": os.getpid(), "at": time.time()}
            os.write(self._fd, json.dumps(entry | more).encode() + b"\n")


def emit(text: str, end: str = "\n") -> None:
    sys.stderr.write(text + end)
    sys.stderr.flush()


def say(line: str, who: str = "APIServer", level: str = "INFO") -> None:
    stamp = time.strftime("%m-%d %H:%M:%S")
    emit(f"({who} pid={os.getpid()}) {level} {stamp} {line}")


# --- the server ------------------------------------------------------------------------------


class Connection(asyncio.StreamReaderProtocol):
    """Knows at once that its client has gone."""

    def __init__(self, server: Server):
        reader = asyncio.StreamReader(limit=1 << 20)
        super().__init__(reader, self._connected)
        self._server = server
        self.gone = False
        self.news = asyncio.Event()  # it is gone, or the engine is dead

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server.clients.add(self)
        try:
            while not self.gone and await self._server.serve(self, reader, writer):
                pass
        except CrashError:
            writer.transport.set_write_buffer_limits(0)
            await writer.drain()
            os.kill(os.getpid(), signal.SIGKILL)
        except (OSError, asyncio.IncompleteReadError, ClientGoneError):
            pass
        finally:
            self._server.clients.discard(self)
            writer.close()

    def eof_received(self) -> bool:
        self._leave()
        super().eof_received()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        self.gone = True
        self.news.set()

    async def pause(self, seconds: float | None) -> None:
        """Waits, but not longer than engine and client live. Raises ClientGoneError."""
        if seconds is None or seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.news.wait()
        if self.gone:
            raise ClientGoneError


class ClientGoneError(Exception):
    """Nobody waits for this answer."""


class CrashError(Exception):
    """Time to end as by `kill -9`, once what is written has left the process."""


class Answer:
    """Writes one answer, and crashes in its middle if it is told to."""

    def __init__(self, writer: asyncio.StreamWriter, crash_after_bytes: int | None):
        self._writer = writer
        self._left = crash_after_bytes

    def whole(self, status: int, body: object) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self._head(status, f"content-length: {len(data)}\r\ncontent-type: application/json")
        self._body(data)

    def begin_stream(self) -> None:
        kind = "text/event-stream; charset=utf-8"
        self._head(200, f"content-type: {kind}\r\ntransfer-encoding: chunked")

    def event(self, data: object) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        event = f"data: {text}\n\n".encode()
        if self._left is None or self._left >= len(event):
            self._left = None if self._left is None else self._left - len(event)
            self._writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        else:
            self._writer.write(b"%x\r\n" % len(event))
            self._body(event)

    def end_stream(self) -> None:
        self._writer.write(b"0\r\n\r\n")

    def _head(self, status: int, more: str) -> None:
        reason = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}.get(status, "Status")
        head = f"HTTP/1.1 {status} {reason}\r\nserver: uvicorn\r\n{more}\r\n\r\n"
        self._writer.write(head.encode())

    def _body(self, data: bytes) -> None:
        if self._left is not None and self._left < len(data):
            self._writer.write(data[: self._left])
            raise CrashError
        self._writer.write(data)


def error(status: int, message: str, kind: str, param: str | None = None) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


ENGINE_DEAD = error(
    500,
    "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    "InternalServerError",
)


class Server:
    """The API server's state and routes."""

    def __init__(self, options: argparse.Namespace, journal: Journal, engine: int):
        self.options = options
        self.names = options.served_model_name or [options.model]
        self.journal = journal
        self.engine = engine
        self.engine_dead = asyncio.Event()
        self.exiting = asyncio.Event()
        self.clients: set[Connection] = set()
        self._requests = 0
        self._running = 0

    # -- life --

    def watch_engine(self) -> None:
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(self.engine)

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.waitpid(self.engine, 0)
            say("EngineCore_DP0 died unexpectedly", level="ERROR")
            self.engine_dead.set()
            for client in self.clients:
                client.news.set()
            self.exit_soon(ENGINE_EXIT_AFTER if self._running else 5.0)

        loop.add_reader(pidfd, ended)

    def exit_soon(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self.exiting.set)

    def on_sigterm(self) -> None:
        self.journal.write("sigterm")
        if not self.options.fake_ignore_sigterm:
            say("[shutdown] API server: stopping engine client mode=abort timeout=0s")
            self.exit_soon(self.options.fake_stop_seconds)

    # -- requests --

    async def serve(
        self, client: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request; False when the connection shall end."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        fields = (line.partition(":") for line in head[1:] if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        body = await read_body(reader, headers)
        await self.route(client, writer, method, path.partition("?")[0], body)
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    async def route(
        self,
        client: Connection,
        writer: asyncio.StreamWriter,
        method: str,
        path: str,
        body: bytes,
    ) -> None:
        answer = Answer(writer, None)
        posts = {
            "generate": {"/v1/chat/completions", "/v1/completions"},
            "embed": {"/v1/embeddings"},
            "score": {"/score", "/v1/score", "/rerank", "/v1/rerank"},
        }[self.options.fake_task]
        if path in ("/health", "/ping"):
            answer.whole(503 if self.engine_dead.is_set() else 200, None)
        elif path == "/version":
            answer.whole(200, {"version": "0.32.0"})
        elif path == "/v1/models":
            answer.whole(200, {"object": "list", "data": [self.card(name) for name in self.names]})
        elif path not in posts:
            answer.whole(404, {"detail": "Not Found"})
        elif method != "POST":
            answer.whole(405, {"detail": "Method Not Allowed"})
        else:
            await self.compute(client, writer, path, body)

    def card(self, name: str) -> dict[str, object]:
        length = self.options.max_model_len
        card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "vllm"}
        return {**card, "root": self.options.model, "parent": None, "max_model_len": length}

    async def compute(
        self, client: Connection, writer: asyncio.StreamWriter, path: str, body: bytes
    ) -> None:
        try:
            asked = json.loads(body)
            model = asked["model"]
        except (ValueError, KeyError, TypeError) as problem:
            text = f"1 validation error:\n  {problem!r}"
            Answer(writer, None).whole(400, error(400, text, "Bad Request", "body"))
            return
        if model not in self.names:
            text = f"The model `{model}` does not exist. Valid aliases: {', '.join(self.names)}."
            Answer(writer, None).whole(404, error(404, text, "NotFoundError", "model"))
            return
        self._requests += 1
        self._running += 1
        number = self._requests
        self.journal.write("request", request=number, path=path, bytes=len(body), asked=asked)
        try:
            await self.answer(client, writer, path, asked)
        except (ClientGoneError, OSError):
            self.journal.write("aborted", request=number)
            raise
        else:
            self.journal.write("finished", request=number)
        finally:
            self._running -= 1

    async def answer(
        self,
        client: Connection,
        writer: asyncio.StreamWriter,
        path: str,
        asked: dict[str, object],
    ) -> None:
        plan = Plan(self.options, asked)
        answer = Answer(writer, plan.crash_after_bytes)
        if self.engine_dead.is_set():
            answer.whole(500, ENGINE_DEAD)
            self.exit_soon(ENGINE_EXIT_AFTER)
        elif plan.status is not None:
            answer.whole(plan.status, error(plan.status, "as told", "InternalServerError"))
        elif path in ("/v1/chat/completions", "/v1/completions"):
            await self.generate(client, writer, answer, plan, "chat" in path)
        else:
            await self.step(client, plan, 0)
            answer.whole(200, pooled(path, asked, self.names[0]))

    async def generate(
        self,
        client: Connection,
        writer: asyncio.StreamWriter,
        answer: Answer,
        plan: Plan,
        chat: bool,
    ) -> None:
        shape = Shape(self.names[0], chat, self._requests)
        if not plan.stream:
            for number in range(plan.tokens):
                await self.step(client, plan, number)
            if self.engine_dead.is_set():
                answer.whole(500, ENGINE_DEAD)
            else:
                answer.whole(200, shape.whole(plan))
            return
        answer.begin_stream()
        if chat:
            answer.event(shape.chunk({"role": "assistant", "content": ""}, None))
        for number in range(plan.tokens):
            await self.step(client, plan, number)
            if self.engine_dead.is_set():
                answer.event(ENGINE_DEAD)
                break
            last = number == plan.tokens - 1
            answer.event(shape.chunk(f" t{number}", "length" if last else None))
            await writer.drain()
        else:
            if plan.include_usage:
                answer.event(shape.usage_chunk(plan))
        answer.event("[DONE]")
        answer.end_stream()

    async def step(self, client: Connection, plan: Plan, number: int) -> None:
        """The time of one token."""
        if plan.crash_after_chunks is not None and number >= plan.crash_after_chunks:
            raise CrashError
        stalled = plan.stall_after is not None and number >= plan.stall_after
        await client.pause(None if stalled else plan.delay)


class Plan:
    """What to do for one request: the flags, and what the request says instead."""

    def __init__(self, options: argparse.Namespace, asked: dict[str, object]):
        def number(name: str) -> int | None:
            value = asked.get(f"fake_{name}", getattr(options, f"fake_{name}"))
            return None if value is None else int(str(value))

        tokens = asked.get("max_completion_tokens", asked.get("max_tokens"))
        self.probe = asked.get("prompt") == "a" and tokens == 1  # sparkd's own readiness check
        self.tokens = int(str(tokens)) if tokens is not None else number("tokens") or 0
        self.delay = float(str(asked.get("fake_token_delay", options.fake_token_delay)))
        self.stall_after = None if self.probe else number("stall_after")
        self.crash_after_chunks = None if self.probe else number("crash_after_chunks")
        self.crash_after_bytes = None if self.probe else number("crash_after_bytes")
        self.status = None if self.probe else options.fake_answer_status
        self.stream = bool(asked.get("stream"))
        extra = asked.get("stream_options")
        self.include_usage = isinstance(extra, dict) and bool(extra.get("include_usage"))
        self.prompt_tokens = len(json.dumps(asked.get("messages", asked.get("prompt", "")))) // 4


class Shape:
    """vLLM's objects for chat and for plain completions."""

    def __init__(self, model: str, chat: bool, number: int):
        self._chat = chat
        kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl" if chat else "cmpl"
        self._base = {"id": f"{prefix}-fake{number}", "created": int(time.time()), "model": model}
        self._kind = kind

    def chunk(self, content: object, finish: str | None) -> dict[str, object]:
        if self._chat:
            said: dict[str, object] = {
                "delta": content if isinstance(content, dict) else {"content": content}
            }
        else:
            said = {"text": content}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        kind = self._kind + (".chunk" if self._chat else "")
        return {**self._base, "object": kind, "choices": [choice]}

    def usage_chunk(self, plan: Plan) -> dict[str, object]:
        return {**self.chunk("", None), "choices": [], "usage": usage(plan)}

    def whole(self, plan: Plan) -> dict[str, object]:
        text = "".join(f" t{number}" for number in range(plan.tokens))
        said: dict[str, object] = (
            {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        )
        choice: dict[str, object] = {
            "index": 0,
            **said,
            "logprobs": None,
            "finish_reason": "length",
        }
        return {**self._base, "object": self._kind, "choices": [choice], "usage": usage(plan)}


def usage(plan: Plan) -> dict[str, int]:
    total = plan.prompt_tokens + plan.tokens
    counts = {"prompt_tokens": plan.prompt_tokens, "completion_tokens": plan.tokens}
    return {**counts, "total_tokens": total}


def pooled(path: str, asked: dict[str, object], model: str) -> dict[str, object]:
    counts = {"prompt_tokens": 1, "total_tokens": 1}
    if "embed" in path:
        texts = asked.get("input")
        count = len(texts) if isinstance(texts, list) else 1
        vectors = [
            {"object": "embedding", "index": n, "embedding": [0.5] * 8} for n in range(count)
        ]
        return {"object": "list", "data": vectors, "model": model, "usage": counts}
    if "rerank" in path:
        documents = asked.get("documents")
        found = documents if isinstance(documents, list) else [documents]
        results = [{"index": n, "relevance_score": 0.5} for n in range(len(found))]
        return {"id": "rerank-fake", "model": model, "results": results, "usage": counts}
    scores = [{"index": 0, "object": "score", "score": 0.5}]
    return {"id": "score-fake", "object": "list", "data": scores, "model": model, "usage": counts}


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


# --- start and end ---------------------------------------------------------------------------


class Start:
    """The phases before the server answers, with vLLM's own lines; some go wrong."""

    def __init__(self, options: argparse.Namespace, journal: Journal):
        self._options = options
        self._journal = journal
        self._woken = threading.Event()
        self._engine = 0

    def bind(self) -> socket.socket:
        """As vLLM: before the model is loaded, and never over a socket that is there."""
        if self._options.uds:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self._options.uds)
        else:
            listener = socket.create_server((self._options.host, self._options.port))
        return listener

    def run(self) -> int:
        """Returns the pid of EngineCore."""
        options = self._options
        signal.signal(signal.SIGTERM, self._on_sigterm)
        say(f"[api_utils.py:286] non-default args: {{'model': '{options.model}'}}")
        self._pass(0.2)
        say("[model.py:733] Resolved architecture: LlamaForCausalLM")
        self._check_model()
        say(f"[model.py:2152] Using max model len {options.max_model_len}")
        self._engine = fork_engine(options)
        signal.signal(signal.SIGCHLD, self._on_sigchld)
        self._on_sigchld()
        say("[core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: ...", "EngineCore")
        self._pass(0.2)
        say(f"[cpu_model_runner.py:68] Starting to load model {options.model}...", "Worker")
        for done in (0, 1, 2):
            bar = f"Loading safetensors checkpoint shards: {done * 50:3}% Completed | {done}/2 "
            emit(f"\r{bar}", end="")
            self._pass(0.15)
        emit("")
        if options.fake_die_in_start is not None:
            emit(options.fake_die_in_start.replace("\\n", "\n"))
            self._die(options.fake_exit_status)
        say("[default_loader.py:501] Loading weights took 0.01 seconds", "Worker")
        while options.fake_never_ready:
            self._pass_forever()
        self._pass(0.15)
        say("[kv_cache_utils.py:2327] CPU KV cache size: 131,072 tokens", "EngineCore")
        say("[core.py:402] init engine (profile, create kv cache, warmup model) took 0.18 s")
        say(f"[entry.py:140] Starting vLLM server on unix:{options.uds}")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self._engine

    def _check_model(self) -> None:
        """A path that is not there is taken for a name at the hub, as vLLM does."""
        model = self._options.model
        if model.startswith("/") and not Path(model).is_dir():
            say("Traceback (most recent call last):", level="ERROR")
            emit(
                "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' "
                f"or 'namespace/repo_name': '{model}'. Use `repo_type` argument if needed.",
            )
            sys.exit(1)

    def _on_sigterm(self, *_: object) -> None:
        self._journal.write("sigterm")
        if not (self._options.fake_swallow_sigterm or self._options.fake_ignore_sigterm):
            self._die(143)

    def _on_sigchld(self, *_: object) -> None:
        """The real one watches EngineCore while it waits for it."""
        pid, status = os.waitpid(self._engine, os.WNOHANG)
        if pid:
            self._engine = 0
            how = os.waitstatus_to_exitcode(status)
            emit(
                "RuntimeError: Engine core initialization failed. See root cause above. "
                f"Failed core proc(s): {{'EngineCore': {how}}}"
            )
            self._die(1)

    def _die(self, status: int) -> None:
        """A start that fails takes EngineCore with it."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._engine:
            os.kill(self._engine, signal.SIGKILL)
        self._journal.write("exit", status=status)
        os._exit(status)

    def _pass(self, share: float) -> None:
        self._woken.wait(self._options.fake_start_seconds * share)

    def _pass_forever(self) -> None:
        signal.pause()


def flood(seconds: float) -> None:
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        emit(f"INFO line {number} " + "x" * 200)


async def run(options: argparse.Namespace, journal: Journal, listener: socket.socket, engine: int):
    server = Server(options, journal, engine)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.on_sigterm)
    server.watch_engine()
    if options.uds:
        listening = await loop.create_unix_server(lambda: Connection(server), sock=listener)
    else:
        listening = await loop.create_server(lambda: Connection(server), sock=listener)
    for line in ("Started server process [1]", "Application startup complete."):
        emit(f"INFO:     {line}")
    journal.write("ready")
    if options.fake_exit_after is not None:
        server.exit_soon(options.fake_exit_after)
    if options.fake_print_seconds:
        await asyncio.to_thread(flood, options.fake_print_seconds)
    await server.exiting.wait()
    listening.close()


def main(argv: list[str]) -> None:
    options = parse(argv)
    journal = Journal(options.fake_journal, (options.served_model_name or [options.model])[0])
    journal.write("started", argv=argv)
    start = Start(options, journal)
    listener = start.bind()
    engine = start.run()
    asyncio.run(run(options, journal, listener, engine))
    # Gone before its children, as the real one: they are told, and left to end by themselves.
    with contextlib.suppress(ProcessLookupError):
        os.kill(engine, signal.SIGTERM)
    journal.write("exit", status=0)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
