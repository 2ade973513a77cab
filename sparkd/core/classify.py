"""Names a failure: from how an engine ended and what it printed to a cause and one line. Pure.

Source: vLLM 0.32.0 (2026-11), its messages as printed; huggingface_hub 1.x; PyTorch 2.13.
"""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Iterator, Sequence
from typing import Protocol

from sparkd.core.failure import Failure, FailureCause

_DETAIL_LIMIT = 400


class Ended(Protocol):
    """What is known of the end: `sparkd.supervisor.ports.EngineExit` has this shape."""

    @property
    def exit_status(self) -> int | None: ...

    @property
    def signal(self) -> int | None: ...

    @property
    def note(self) -> str: ...


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


# In this order: a KV cache that is too small for the context is an argument to change, though it
# speaks of memory; everything else that speaks of memory is about memory.
_CAUSES: tuple[tuple[FailureCause, re.Pattern[str]], ...] = (
    (
        FailureCause.WRONG_ARGUMENTS,
        _words(r"To serve at least one request", r"Not enough allowed NUMA nodes"),
    ),
    (
        FailureCause.OUT_OF_MEMORY,
        _words(
            r"CUDA out of memory",
            r"CUDA error: out of memory",
            r"OutOfMemoryError",
            r"\bMemoryError\b",
            r"std::bad_alloc",
            r"Cannot allocate memory",
            r"DefaultCPUAllocator: (can't|not enough)",
            r"Free memory on device",
            r"No available memory for the cache blocks",
            r"on kv cache allocation is less than requested",
            r"CUBLAS_STATUS_ALLOC_FAILED",
        ),
    ),
    (
        FailureCause.GATED_REPO,
        _words(
            r"GatedRepoError",
            r"gated repo",
            r"40[13] Client Error",
            r"Access to model .* is restricted",
        ),
    ),
    (
        FailureCause.MISSING_WEIGHTS,
        _words(
            r"HFValidationError",
            r"RepositoryNotFoundError",
            r"EntryNotFoundError",  # LocalEntryNotFoundError too
            r"OfflineModeIsEnabled",
            r"Can't load (the configuration|the model|tokenizer|image processor)",
            r"is not a local folder and is not a valid model identifier",
            r"does not appear to have a file named",
            r"[Cc]annot find any model weights",
            r"SafetensorError",
            r"couldn't connect to .* to load (this|the) ",
            r"No such file or directory: .*\.(safetensors|bin|gguf|pt|json|model|txt)\b",
            r"FileNotFoundError: .*(weights|config\.json)",
        ),
    ),
    (FailureCause.ADDRESS_IN_USE, _words(r"Address already in use")),
    (
        FailureCause.BAD_FLAG,
        _words(
            r"\berror: (unrecognized arguments|ambiguous option|the following arguments)",
            r"\berror: argument ",
            r"\berror: .*expected (one|at least one) argument",
        ),
    ),
    (
        FailureCause.WRONG_ARGUMENTS,
        _words(
            r"greater than the derived max_model_len",
            r"Value error, ",
            r"is not supported on current platform",
            r"Model architectures .* (are not supported|failed to be inspected)",
            r"must be divisible by tensor parallel size",
            r"is larger than the number of available GPUs",
            r"World size .* is larger than",
            r"Unknown quantization method",
            r"[Ii]nvalid (tool call|reasoning) parser",
        ),
    ),
    # Only the heading of what pydantic found; its own words come in the lines after it.
    (FailureCause.WRONG_ARGUMENTS, _words(r"ValidationError: \d+ validation error")),
)

# Says only that there is a cause, above.
_GENERIC = _words(
    r"Engine core initialization failed",
    r"WorkerProc initialization failed",
    r"EngineCore failed to start",
    r"See (root cause|stack trace)",
    r"died unexpectedly",
    r"raise SystemExit",
)
_ERROR_LINE = re.compile(r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b|.*\berror: )")
_PROCESS = re.compile(r"^\([\w-]+ pid=\d+\) ?")
_LEVEL = re.compile(r"^(?:ERROR|CRITICAL) [\d-]+ [\d:]+ (?:\[[^\]]*\] ?)+")
# Warnings quote errors that did not happen, and the arguments may contain any words.
_HARMLESS = re.compile(
    r"^(?:\([\w-]+ pid=\d+\) )?"
    r"(?:(?:INFO|WARNING|DEBUG)\b"
    r"|\S+:\d+: \w*Warning: "  # Python's `warnings`
    r"|(?:\[rank\d+\]: ?)?\[[WI]\d{4} )"  # of torch's C++ side
)


def classify(ended: Ended, log_tail: tuple[str, ...], had_been_ready: bool) -> Failure:
    """Satisfies `sparkd.supervisor.ports.Classifier`."""
    lines = [_bare(line) for line in log_tail if not _HARMLESS.match(line)]
    cause, detail = (_after_ready if had_been_ready else _while_starting)(ended, lines)
    return Failure(
        cause=cause,
        detail=_one_line(detail),
        exit_status=ended.exit_status,
        signal=ended.signal,
        log_tail=log_tail,
    )


def _while_starting(ended: Ended, lines: Sequence[str]) -> tuple[FailureCause, str]:
    found = _named(lines)
    number = _signal_of(ended)
    if number is not None and (found is None or found[0] is not FailureCause.OUT_OF_MEMORY):
        # What it printed before is no reason: it was still going on when it was killed.
        return FailureCause.KILLED, _killed(number)
    if found is not None:
        return found
    if ended.note:
        return FailureCause.KILLED, ended.note
    return FailureCause.UNKNOWN, _last_error(lines) or "it ended without a word about why"


def _after_ready(ended: Ended, lines: Sequence[str]) -> tuple[FailureCause, str]:
    found = _named(lines)
    if found is not None and found[0] is FailureCause.OUT_OF_MEMORY:
        return found
    number = _signal_of(ended)
    if number is not None:
        return FailureCause.KILLED, _killed(number)
    said = ended.note or _last_error(lines) or "it ended by itself"
    return FailureCause.ENGINE_DIED, said


def _named(lines: Sequence[str]) -> tuple[FailureCause, str] | None:
    for cause, pattern in _CAUSES:
        found = [line for line in lines if pattern.search(line)]
        if found:
            # A traceback quotes the source that raised before it tells what was raised.
            return cause, next((line for line in found if not _is_source(line)), found[0])
    return None


def _is_source(line: str) -> bool:
    """A traceback indents its source by four blanks, pydantic its message by two."""
    return line.startswith(("    ", "  File "))


def _last_error(lines: Sequence[str]) -> str | None:
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    telling = [line for line in errors if not _GENERIC.search(line)]
    return next(_backwards(telling), None) or next(_backwards(errors), None) or _last(lines)


def _last(lines: Sequence[str]) -> str | None:
    return next((line for line in _backwards(lines) if line.strip()), None)


def _backwards(lines: Sequence[str]) -> Iterator[str]:
    return iter(reversed(lines))


def _signal_of(ended: Ended) -> int | None:
    """A process that handles SIGTERM may exit with 128 + its number, as shells report it."""
    if ended.signal is not None:
        return ended.signal
    status = ended.exit_status or 0
    return status - 128 if status - 128 in (signals.SIGTERM, signals.SIGKILL) else None


def _killed(number: int) -> str:
    try:
        name = signals.Signals(number).name
    except ValueError:
        name = "unknown"
    why = "; the kernel does this when memory runs out" if number == signals.SIGKILL else ""
    return f"it was ended by signal {number} ({name}){why}"


def _bare(line: str) -> str:
    return _LEVEL.sub("", _PROCESS.sub("", line))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _DETAIL_LIMIT else line[: _DETAIL_LIMIT - 1] + "…"
