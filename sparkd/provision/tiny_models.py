"""Makes tiny models with random weights, under the Python of a vLLM runtime. Needs no network.

A model's directory appears complete or not at all. One that the same generator made is kept.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from enum import StrEnum
from pathlib import Path

from sparkd.errors import ProvisionError
from sparkd.provision import disk
from sparkd.provision.commands import CommandFailedError, run_command
from sparkd.provision.progress import Progress

#: Runs under another Python than ours, so it is a file to hand over and not a module to import.
GENERATOR = Path(__file__).with_name("data") / "make_tiny_model.py"
#: In a model's directory: which generator made it, from which arguments.
STAMP = ".made-by"


class TinyKind(StrEnum):
    """The architectures that can be made: two that chat, one that embeds."""

    LLAMA = "llama"
    QWEN3 = "qwen3"
    BERT = "bert"


def make_tiny_model(
    python: Path,
    kind: TinyKind,
    directory: Path,
    progress: Progress,
    *,
    context: int = 2048,
    seed: int = 0,
) -> Path:
    """The directory of the model, which is made unless it is there already."""
    stamp = f"{hashlib.sha256(GENERATOR.read_bytes()).hexdigest()} {kind} {context} {seed}\n"
    with disk.locked(directory.with_name(f".{directory.name}.lock"), lambda holder: None):
        if _stamp_of(directory) != stamp:
            with progress.step(f"Making the tiny model {directory.name}"):
                _make(python, kind, directory, context, seed, stamp)
    return directory


def _stamp_of(directory: Path) -> str | None:
    try:
        return (directory / STAMP).read_text("utf-8")
    except OSError:
        return None


def _make(
    python: Path, kind: TinyKind, directory: Path, context: int, seed: int, stamp: str
) -> None:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=directory.parent) as partial:
        made = Path(partial) / directory.name
        argv = [str(python), str(GENERATOR), str(made)]
        arguments = ["--kind", kind, "--context", str(context), "--seed", str(seed)]
        try:
            run_command([*argv, *arguments], env={"HF_HUB_OFFLINE": "1"})
        except CommandFailedError as error:
            reason = " ".join(error.tail[-1:])
            raise ProvisionError(f"cannot make the tiny model {directory.name}: {reason}") from None
        (made / STAMP).write_text(stamp, "utf-8")
        _readable_by_all(made)
        if directory.exists():
            shutil.rmtree(directory)
        made.rename(directory)


def _readable_by_all(directory: Path) -> None:
    """Engines may run as another user."""
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
