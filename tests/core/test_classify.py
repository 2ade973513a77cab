"""Failures are named from the engine's own words: real lines of vLLM 0.32.0 and its libraries."""
# ruff: noqa: E501  log lines are quoted as they are printed

from __future__ import annotations

import textwrap

import pytest

from sparkd.core.classify import classify
from sparkd.core.failure import FailureCause
from sparkd.supervisor.ports import EngineExit

FAILED = EngineExit(exit_status=1)
GENERIC = (
    "RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {'EngineCore': 1}"
)


def log(text: str) -> tuple[str, ...]:
    return tuple(textwrap.dedent(text).strip("\n").splitlines())


NOISE = log(
    """
    (APIServer pid=7) INFO 11-23 13:04:52 [api_utils.py:286] non-default args: {'model': '/m/gated repo'}
    (APIServer pid=7) WARNING 11-23 13:04:52 [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase with error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`.
    (Worker pid=9) INFO 11-23 13:05:24 [weight_utils.py:1108] Filesystem type for checkpoints: EXT4. Checkpoint size: 0.00 GiB. Available RAM: 21.98 GiB.
    """
)

CASES = [
    (
        FailureCause.BAD_FLAG,
        "vllm serve: error: unrecognized arguments: --enforce-eger",
        """
        usage: vllm serve [model_tag] [options]
        vllm serve: error: unrecognized arguments: --enforce-eger
        """,
    ),
    (
        FailureCause.BAD_FLAG,
        "api_server.py: error: argument --max-model-len: invalid int value: 'many'",
        "api_server.py: error: argument --max-model-len: invalid int value: 'many'",
    ),
    (
        FailureCause.MISSING_WEIGHTS,
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or",
        """
        (APIServer pid=7) Traceback (most recent call last):
        (APIServer pid=7)   File "/v/lib/huggingface_hub/utils/_validators.py", line 106, in validate
        (APIServer pid=7)     raise HFValidationError(
        (APIServer pid=7) huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/nowhere'. Use `repo_type` argument if needed.
        """,
    ),
    (
        FailureCause.MISSING_WEIGHTS,
        "OSError: Can't load the configuration of 'org/none'.",
        "(APIServer pid=7) OSError: Can't load the configuration of 'org/none'.",
    ),
    (
        FailureCause.MISSING_WEIGHTS,
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files",
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache",
    ),
    (
        FailureCause.MISSING_WEIGHTS,
        "FileNotFoundError: [Errno 2] No such file or directory: '/m/model-00002.safetensors'",
        "FileNotFoundError: [Errno 2] No such file or directory: '/m/model-00002.safetensors'",
    ),
    (
        FailureCause.MISSING_WEIGHTS,
        "RuntimeError: Cannot find any model weights with `/m/empty`",
        f"""
        (Worker pid=9) ERROR 11-23 13:05:24 [multiproc_executor.py:9] RuntimeError: Cannot find any model weights with `/m/empty`
        {GENERIC}
        """,
    ),
    (
        FailureCause.GATED_REPO,
        "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
        """
        huggingface_hub.errors.GatedRepoError: 401 Client Error.
        OSError: You are trying to access a gated repo.
        """,
    ),
    (
        FailureCause.OUT_OF_MEMORY,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        f"""
        (EngineCore pid=8) ERROR 11-23 13:05:24 [core.py:1116]     raise torch.OutOfMemoryError("CUDA out of memory")
        (EngineCore pid=8) ERROR 11-23 13:05:24 [core.py:1116] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
        (APIServer pid=7) {GENERIC}
        """,
    ),
    (
        FailureCause.OUT_OF_MEMORY,
        "ValueError: Free memory on device cuda:0 (41.2/119.7 GiB) on startup is less than desired",
        f"""
        (EngineCore pid=8) ValueError: Free memory on device cuda:0 (41.2/119.7 GiB) on startup is less than desired GPU memory utilization (0.92, 110.1 GiB).
        {GENERIC}
        """,
    ),
    (
        FailureCause.OUT_OF_MEMORY,
        "ValueError: No available memory for the cache blocks. Try increasing",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
    ),
    (FailureCause.OUT_OF_MEMORY, "MemoryError", "MemoryError"),
    (
        FailureCause.ADDRESS_IN_USE,
        "OSError: [Errno 98] Address already in use",
        "(APIServer pid=7) OSError: [Errno 98] Address already in use",
    ),
    (
        FailureCause.WRONG_ARGUMENTS,
        "Value error, User-specified max_model_len (99999999) is greater than the derived",
        """
        (APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
        (APIServer pid=7)   Value error, User-specified max_model_len (99999999) is greater than the derived max_model_len (max_position_embeddings=2048)
        """,
    ),
    (
        FailureCause.WRONG_ARGUMENTS,
        "Value error, Sleep mode is not supported on current platform.",
        "  Value error, Sleep mode is not supported on current platform. [type=value_error]",
    ),
    (
        FailureCause.WRONG_ARGUMENTS,
        "ValueError: To serve at least one request with the model's max seq len (65536)",
        f"""
        (EngineCore pid=8) ERROR 11-23 13:05:24 [core.py:1116] ValueError: To serve at least one request with the model's max seq len (65536), (0.03 GiB KV cache is needed, which is larger than the available KV cache memory (0.0 GiB).
        (APIServer pid=7) {GENERIC}
        """,
    ),
    (
        FailureCause.WRONG_ARGUMENTS,
        "AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers.",
        "AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers.",
    ),
    (
        FailureCause.UNKNOWN,
        "ZeroDivisionError: division by zero",
        f"""
        (EngineCore pid=8) ERROR 11-23 13:05:24 [core.py:1116] ZeroDivisionError: division by zero
        (APIServer pid=7) {GENERIC}
        """,
    ),
]


@pytest.mark.parametrize(("cause", "detail", "text"), CASES)
def test_a_failed_start_is_named_by_its_root_cause(cause: FailureCause, detail: str, text: str):
    failure = classify(FAILED, NOISE + log(text) + ("", "some last words"), False)
    assert failure.cause is cause
    assert failure.detail.startswith(detail)
    assert failure.exit_status == 1
    assert failure.log_tail[-1] == "some last words"


def test_warnings_and_arguments_are_no_reasons():
    failure = classify(FAILED, NOISE, False)
    assert failure.cause is FailureCause.UNKNOWN
    assert failure.detail == "it ended without a word about why"


@pytest.mark.parametrize(
    "line",
    [
        "(EngineCore pid=8) /v/lib/torch/cuda/__init__.py:65: FutureWarning: The pynvml package is deprecated; CUDA out of memory is not told.",
        "/v/lib/transformers/utils.py:12: UserWarning: No such file or directory: 'tokenizer.json'",
        "[W1123 13:00:00.123456789 socket.cpp:426] [c10d] The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).",
        "(EngineCore pid=8) [rank0]:[W1123 13:00:00.123456789 ProcessGroupNCCL.cpp:1538] Warning: Cannot allocate memory",
    ],
)
def test_warnings_of_python_and_of_torch_are_no_reasons(line: str):
    assert classify(FAILED, (line, "ValueError: no"), False).cause is FailureCause.UNKNOWN
    ended = EngineExit(exit_status=0)
    assert classify(ended, (line,), True).cause is FailureCause.ENGINE_DIED


def test_the_generic_error_is_better_than_nothing():
    assert classify(FAILED, (GENERIC,), False).detail == GENERIC


@pytest.mark.parametrize("exit_", [EngineExit(signal=9), EngineExit(exit_status=137)])
def test_signal_9_while_starting_is_killed(exit_: EngineExit):
    failure = classify(exit_, NOISE, False)
    assert failure.cause is FailureCause.KILLED
    assert "signal 9 (SIGKILL); the kernel does this when memory runs out" in failure.detail


def test_words_about_memory_outweigh_the_signal_that_followed():
    failure = classify(EngineExit(signal=6), ("terminate called after std::bad_alloc",), False)
    assert failure.cause is FailureCause.OUT_OF_MEMORY


def test_exit_status_0_after_being_ready_is_a_dead_engine():
    tail = (
        *NOISE,
        "(APIServer pid=7) vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an "
        "issue. See stack trace (above) for the root cause.",
    )
    failure = classify(EngineExit(exit_status=0), tail, True)
    assert failure.cause is FailureCause.ENGINE_DIED
    assert "EngineDeadError" in failure.detail
    assert failure.how() == "exit status 0"


def test_a_lost_vital_process_names_itself():
    failure = classify(EngineExit(note="EngineCore (pid 8) ended"), NOISE, True)
    assert (failure.cause, failure.detail) == (FailureCause.ENGINE_DIED, "EngineCore (pid 8) ended")


def test_memory_that_runs_out_while_serving_is_said():
    tail = ("(EngineCore pid=8) ERROR 11-23 13:05:24 [core.py:1] torch.OutOfMemoryError: CUDA out",)
    assert classify(EngineExit(exit_status=0), tail, True).cause is FailureCause.OUT_OF_MEMORY


def test_a_kill_after_being_ready_is_killed():
    assert classify(EngineExit(signal=9), NOISE, True).cause is FailureCause.KILLED


def test_the_end_of_a_shim_while_starting_is_killed():
    failure = classify(EngineExit(note="the shim (pid 5) ended"), NOISE, False)
    assert (failure.cause, failure.detail) == (FailureCause.KILLED, "the shim (pid 5) ended")


def test_a_detail_is_one_line_of_bounded_length():
    failure = classify(FAILED, ("ValueError: " + "x y\t" * 1000,), False)
    assert len(failure.detail) == 400
    assert "\t" not in failure.detail
