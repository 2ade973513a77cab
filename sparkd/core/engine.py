"""vLLM as a program: its command line, its environment, what its log says, how it is asked.

Pure: paths come in as text, nothing is looked up. Source: vLLM 0.32.0 (2026-11), read and run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sparkd.core.catalogue import LaunchSpec, Task
from sparkd.errors import HostError

#: Flags that sparkd sets or that would take the engine out of its hands; a model may not give them.
RESERVED_FLAGS = frozenset(
    {
        "--uds",
        "--host",
        "--port",
        "--served-model-name",
        "--max-model-len",
        "--kv-cache-memory-bytes",
        "--api-key",
        "--model",
        "--config",
        "--root-path",
        "--ssl-keyfile",
        "--ssl-certfile",
        "--headless",
        "--api-server-count",
        "-asc",
    }
)

#: Variables that sparkd sets itself or that would lock it out of the engine.
RESERVED_ENV = frozenset(
    {
        "TMPDIR",
        "VLLM_RPC_BASE_PATH",
        "VLLM_API_KEY",
        "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
        "SPARKD_INSTANCE",
    }
)

# Bytes of a path in sockaddr_un without its NUL. Source: unix(7), Linux.
_SOCKET_PATH_LIMIT = 107
# vLLM names its ZeroMQ sockets by a UUID in VLLM_RPC_BASE_PATH, libzmq has the same limit.
_RPC_NAME = 1 + 36

HEALTH_PATH = "/health"

_ENV: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_COLOR": "0",
    # setproctitle otherwise writes over the environment, by which an orphan is recognised.
    "SPT_NOENV": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCommand:
    """What to execute. `env` is added to the few variables of the daemon that pass through."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The smallest request that makes the engine compute: one token, or one short text."""

    path: str
    body: Mapping[str, object]


def render(launch: LaunchSpec, *, socket_path: str, private_dir: str) -> EngineCommand:
    """The command that starts this engine. Raises HostError when a path is too long for it."""
    _check_lengths(socket_path, private_dir)
    program, *words = launch.runtime.command
    program = program if program.startswith("/") else f"{launch.runtime.root}/{program}"
    argv = [program, *words, launch.weights, "--uds", socket_path]
    argv += ["--served-model-name", *launch.served_names]
    if launch.max_model_len is not None:
        argv += ["--max-model-len", str(launch.max_model_len)]
    if launch.kv_cache is not None:
        argv += ["--kv-cache-memory-bytes", str(int(launch.kv_cache))]
    argv += launch.args
    own = {"TMPDIR": private_dir, "VLLM_RPC_BASE_PATH": private_dir}
    return EngineCommand(argv=tuple(argv), env={**_ENV, **launch.runtime.env, **launch.env, **own})


def _check_lengths(socket_path: str, private_dir: str) -> None:
    hint = "use a shorter run directory, such as /run/sparkd"
    for path, extra in ((socket_path, 0), (private_dir, _RPC_NAME)):
        length = len(path.encode())
        if length + extra > _SOCKET_PATH_LIMIT:
            limit = _SOCKET_PATH_LIMIT - extra
            raise HostError(
                f"cannot put an engine's sockets at '{path}': "
                f"the path has {length} bytes and may have {limit}",
                hint=hint,
            )


def probe_of(launch: LaunchSpec) -> Probe:
    """The request that shows that this engine can serve."""
    name = launch.served_names[0]
    match launch.task:
        case Task.GENERATE:
            body: dict[str, object] = {"prompt": "a", "max_tokens": 1, "temperature": 0}
            return Probe(path="/v1/completions", body={"model": name, **body})
        case Task.EMBED:
            return Probe(path="/v1/embeddings", body={"model": name, "input": "a"})
        case Task.SCORE:
            return Probe(path="/score", body={"model": name, "text_1": "a", "text_2": "b"})


_SHARDS = re.compile(r"Loading .*checkpoint shards:\s+(\d+)% Completed")
_PHASES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Application startup complete|Started server process|Starting vLLM "), "serving"),
    (
        re.compile(r"Capturing CUDA graph|cudagraph capture|Graph capturing", re.IGNORECASE),
        "capturing",
    ),
    (
        re.compile(r"torch\.compile|Dynamo bytecode|Compiling a graph|Warming up model"),
        "compiling",
    ),
    (
        re.compile(r"KV cache (memory|size)|profiling|Model loading took|Loading weights took"),
        "profiling memory",
    ),
    (re.compile(r"Starting to load model|Loading model from|Loading weights"), "loading weights"),
    (re.compile(r"Initializing a V1 LLM engine|Waiting for .*core engine"), "starting the engine"),
    (re.compile(r"Resolved architecture|Using max model len"), "reading the configuration"),
    (re.compile(r"non-default args|vLLM API server version|importing"), "importing"),
)
# Warnings speak of what is *not* done, and other text must not look like a phase.
_VLLM_LINE = re.compile(r"\b(INFO|Loading)\b")


def phase_of(line: str) -> str | None:
    """The phase of the start that this log line announces, or None."""
    if not _VLLM_LINE.search(line):
        return None
    shards = _SHARDS.search(line)
    if shards:
        return f"loading weights ({shards[1]}%)"
    return next((name for pattern, name in _PHASES if pattern.search(line)), None)
