"""The runtimes that are installed on this machine, read from their `runtime.toml`.

These files are written by sparkd's own tools. A broken one makes its models unavailable and must
not keep the others from being served, so nothing here is worse than `UNAVAILABLE`.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from sparkd.config.documents import read_document
from sparkd.config.problems import Findings, Place, Weight
from sparkd.config.reader import Known, Reader
from sparkd.config.rows import (
    RUNTIME_COMMAND,
    RUNTIME_DEVICE,
    RUNTIME_ENV,
    RUNTIME_KIND,
    RUNTIME_NAME,
    RUNTIME_ROWS,
)
from sparkd.core.catalogue import Device, Runtime, RuntimeKind

RUNTIME_FILE = "runtime.toml"
_KNOWN = Known(RUNTIME_ROWS, ignored=("provenance",))


class Runtimes:
    """What is installed below one directory."""

    def __init__(self, directory: Path, findings: Findings):
        self._directory = directory
        self._found = dict(_read_all(directory, findings))

    def get(self, name: str, asked_at: Place, findings: Findings) -> Runtime:
        """The runtime of this name, or one that cannot be launched after the finding was added."""
        runtime = self._found.get(name)
        if runtime is not None:
            return runtime
        if not name:  # missing or misspelt, which is told already
            return self._placeholder(name)
        findings.add(
            asked_at,
            f"no runtime of this name in {self._directory}: '{name}'",
            self._hint(name),
            Weight.UNAVAILABLE,
        )
        return self._placeholder(name)

    def _placeholder(self, name: str) -> Runtime:
        """Names the path where the runtime should be; the launcher's check refuses it there."""
        root = str(self._directory / name)
        return Runtime(
            name=name, kind=RuntimeKind.VENV, device=Device.CPU, root=root, command=(root,)
        )

    def _hint(self, name: str) -> str:
        if near := difflib.get_close_matches(name, self._found, n=1):
            return f"did you mean '{near[0]}'?"
        if self._found:
            return f"installed: {', '.join(sorted(self._found))}"
        return "none is installed"


def _read_all(directory: Path, findings: Findings) -> list[tuple[str, Runtime]]:
    found: dict[str, Runtime] = {}
    for entry in _directories(directory, findings):
        runtime = _read_runtime(entry / RUNTIME_FILE, findings)
        if runtime is None:
            continue
        if runtime.name in found:
            findings.add(
                Place(entry / RUNTIME_FILE, RUNTIME_NAME.key),
                f"the name '{runtime.name}' belongs to {found[runtime.name].root} already",
                "remove one of the two, or give it another name",
                Weight.UNAVAILABLE,
            )
            continue
        found[runtime.name] = runtime
    return list(found.items())


def _directories(directory: Path, findings: Findings) -> list[Path]:
    """Those with a runtime.toml: without one an installation is not finished."""
    try:
        entries = sorted(directory.iterdir())
        return [
            entry
            for entry in entries
            if not entry.name.startswith(".") and (entry / RUNTIME_FILE).exists()
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        findings.add(
            Place(directory),
            f"cannot look for runtimes here: {error.strerror or error}",
            "the user that runs sparkd must be able to read it",
            Weight.UNAVAILABLE,
        )
        return []


def _read_runtime(file: Path, findings: Findings) -> Runtime | None:
    table = read_document(file, findings, Weight.UNAVAILABLE)
    if table is None:
        return None
    reader = Reader(table, findings, Weight.UNAVAILABLE)
    # Another version of the tools may know more keys: what is not understood is not used.
    reader.report_unknown_keys(_KNOWN, Weight.WARNING)
    kind = reader.get(RUNTIME_KIND)
    command = reader.get(RUNTIME_COMMAND)
    runtime = Runtime(
        name=reader.get(RUNTIME_NAME),
        kind=kind,
        device=reader.get(RUNTIME_DEVICE),
        root=str(file.parent),
        command=command,
        env=reader.get(RUNTIME_ENV),
    )
    if reader.failed:
        return None
    if kind is RuntimeKind.VENV and not os.access(command[0], os.X_OK):
        reader.problem(
            reader.place(RUNTIME_COMMAND),
            f"cannot run {command[0]}: it is not there, or may not be executed",
            "the runtime is damaged: install it again",
        )
    return runtime
