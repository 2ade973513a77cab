"""vLLM's command line, environment, phases and probes."""

from __future__ import annotations

import pytest

from sparkd.core.catalogue import Device, LaunchSpec, Runtime, RuntimeKind, Task
from sparkd.core.engine import RESERVED_ENV, RESERVED_FLAGS, phase_of, probe_of, render
from sparkd.core.quantities import MIB, Bytes
from sparkd.errors import HostError

RUNTIME = Runtime(
    name="cpu",
    kind=RuntimeKind.VENV,
    device=Device.CPU,
    root="/opt/cpu",
    command=("bin/vllm", "serve"),
    env={"A": "runtime", "B": "runtime"},
)


def spec(**more) -> LaunchSpec:
    return LaunchSpec(runtime=RUNTIME, weights="/m/tiny", served_names=("tiny", "alias"), **more)


def rendered(launch: LaunchSpec):
    return render(launch, socket_path="/run/i/x/s", private_dir="/run/i/x/t")


def test_the_command_line_is_complete():
    command = rendered(
        spec(max_model_len=1024, kv_cache=Bytes(64 * MIB), args=("--enforce-eager", "--dtype", "x"))
    )
    assert command.argv == (
        "/opt/cpu/bin/vllm", "serve", "/m/tiny", "--uds", "/run/i/x/s",
        "--served-model-name", "tiny", "alias", "--max-model-len", "1024",
        "--kv-cache-memory-bytes", "67108864", "--enforce-eager", "--dtype", "x",
    )  # fmt: skip


def test_what_is_not_given_is_not_set():
    argv = rendered(spec()).argv
    assert "--max-model-len" not in argv
    assert "--kv-cache-memory-bytes" not in argv


def test_the_models_environment_wins_over_the_runtimes_and_neither_over_the_directories():
    env = rendered(spec(env={"B": "model", "TMPDIR": "/x", "HF_HUB_OFFLINE": "0"})).env
    assert (env["A"], env["B"], env["HF_HUB_OFFLINE"]) == ("runtime", "model", "0")
    assert env["TMPDIR"] == env["VLLM_RPC_BASE_PATH"] == "/run/i/x/t"
    assert env["VLLM_NO_USAGE_STATS"] == env["TRANSFORMERS_OFFLINE"] == "1"


def test_what_sparkd_sets_is_reserved():
    given = {
        word for word in rendered(spec(max_model_len=1, kv_cache=Bytes(1))).argv if word[0] == "-"
    }
    assert given <= RESERVED_FLAGS
    assert {"TMPDIR", "VLLM_RPC_BASE_PATH", "VLLM_API_KEY"} <= RESERVED_ENV


@pytest.mark.parametrize(
    ("socket_path", "private_dir", "too_long"),
    [
        ("/" + "s" * 107, "/t", "socket"),
        ("/s", "/" + "t" * 70, "directory"),
        ("/" + "s" * 106, "/" + "t" * 69, ""),
        ("/" + "ü" * 54, "/t", "socket"),
    ],
)
def test_paths_too_long_for_sockets_are_refused_with_a_hint(socket_path, private_dir, too_long):
    if not too_long:
        render(spec(), socket_path=socket_path, private_dir=private_dir)
        return
    with pytest.raises(HostError, match="bytes and may have") as caught:
        render(spec(), socket_path=socket_path, private_dir=private_dir)
    assert "shorter run directory" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("task", "path"),
    [
        (Task.GENERATE, "/v1/completions"),
        (Task.EMBED, "/v1/embeddings"),
        (Task.SCORE, "/score"),
    ],
)
def test_the_probe_computes_little_and_names_the_model(task: Task, path: str):
    probe = probe_of(spec(task=task))
    assert probe.path == path
    assert probe.body["model"] == "tiny"
    assert probe.body.get("max_tokens", 1) == 1


LINES = {
    "(APIServer pid=7) INFO 11-23 13:04:52 [api_utils.py:286] non-default args: {}": "importing",
    "(APIServer pid=7) INFO 11-23 13:04:52 [model.py:733] Resolved architecture: Llama": (
        "reading the configuration"
    ),
    "(EngineCore pid=8) INFO 11-23 13:05:07 [core.py:133] Initializing a V1 LLM engine (v0.32.0)": (
        "starting the engine"
    ),
    "(Worker pid=9) INFO 11-23 13:05:24 [cpu_model_runner.py:68] Starting to load model /m...": (
        "loading weights"
    ),
    "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00, 2it/s]": (
        "loading weights (50%)"
    ),
    "(Worker pid=9) INFO 11-23 13:05:24 [default_loader.py:501] Loading weights took 0.01 s": (
        "profiling memory"
    ),
    "(EngineCore pid=8) INFO 11-23 13:05:25 [core.py:1] torch.compile took 9.3 s in total": (
        "compiling"
    ),
    "(EngineCore pid=8) INFO 11-23 13:05:25 [x.py:1] Graph capturing finished in 9 secs": (
        "capturing"
    ),
    "(EngineCore pid=8) INFO 11-23 13:05:25 [kv_cache_utils.py:2] CPU KV cache size: 131,072": (
        "profiling memory"
    ),
    "(APIServer pid=7) INFO 11-23 13:05:26 [entry.py:140] Starting vLLM server on unix:/s": (
        "serving"
    ),
    "INFO:     Application startup complete.": "serving",
}


@pytest.mark.parametrize(("line", "phase"), LINES.items())
def test_log_lines_announce_phases(line: str, phase: str):
    assert phase_of(line) == phase


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Traceback (most recent call last):",
        "(APIServer pid=7) INFO 11-23 13:05:26 [launcher.py:195] Route: /health, Methods: GET",
        "Warming up model",
        "(APIServer pid=7) WARNING 11-23 13:04:52 [vllm.py:1703] Enforce eager set, disabling "
        "torch.compile, CUDAGraphs, and JIT kernel warmup.",
    ],
)
def test_other_lines_announce_nothing(line: str):
    assert phase_of(line) is None
