"""Free space and locks below a directory that is being filled. Installs nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sparkd.core.quantities import Bytes, format_size
from sparkd.errors import ProvisionError


def free_bytes(directory: Path) -> Bytes:
    """Free space on the filesystem that holds `directory`, which need not exist yet."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return Bytes(shutil.disk_usage(existing).free)


def require_free(
    directory: Path,
    wanted: Bytes,
    what: str,
    measure: Callable[[Path], Bytes] = free_bytes,
) -> None:
    """Raises ProvisionError with both figures when less than `wanted` is free."""
    free = measure(directory)
    if free < wanted:
        raise ProvisionError(
            f"cannot {what} in {directory}: {format_size(free)} are free there and "
            f"{format_size(wanted)} are needed",
            hint="free some space, or choose another place with SPARKD_RUN_DIR=/path make run",
        )


@contextmanager
def locked(file: Path, on_wait: Callable[[str], None]) -> Iterator[int]:
    """Holds `file` exclusively; yields its descriptor, which children may keep open.

    `on_wait` is told the holder's process id when someone else has it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as held:
        if not try_lock(held.fileno()):
            on_wait(holder(file))
            lock(held.fileno())
        note_holder(held.fileno())
        yield held.fileno()


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(descriptor: int) -> None:
    """Waits until no one else holds it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def note_holder(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def holder(file: Path) -> str:
    return file.read_text().strip() or "unknown"


def write_atomically(file: Path, text: str) -> None:
    """Whoever reads `file` sees the old text or the new one, also after a power cut."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)
