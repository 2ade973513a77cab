"""Where `make run` keeps everything it makes, and the configuration it writes there.

Nothing outside this directory is written, but for a short directory of sockets when the clone's
own path is too long for them.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from sparkd.config.rows import BELOW_RUN, UNIX_PATH_MAX
from sparkd.core.catalogue import Device
from sparkd.provision import disk
from sparkd.provision.runtimes import InstalledRuntime

LONGEST_SOCKET_DIRECTORY = UNIX_PATH_MAX - BELOW_RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneState:
    """The directories of one clone's `.run`."""

    root: Path
    sockets: Path

    @property
    def runtimes(self) -> Path:
        return self.root / "runtimes"

    @property
    def weights(self) -> Path:
        return self.root / "models"

    @property
    def catalogue(self) -> Path:
        return self.root / "models.d"

    @property
    def config(self) -> Path:
        return self.root / "sparkd.toml"

    @property
    def log(self) -> Path:
        return self.root / "daemon.log"

    @property
    def control_socket(self) -> Path:
        return self.sockets / "control.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One model that `make run` puts into the catalogue."""

    id: str
    source: str
    description: str
    tiny: bool


def open_clone_state(root: Path) -> CloneState:
    """Makes the directories that are missing."""
    absolute = root.absolute()
    absolute.mkdir(parents=True, exist_ok=True)
    state = CloneState(root=absolute, sockets=socket_directory(absolute))
    for directory in (state.runtimes, state.weights, state.catalogue, state.root / "state"):
        directory.mkdir(exist_ok=True)
    return state


def socket_directory(root: Path) -> Path:
    """`root`/r, or a short directory elsewhere that is remembered for the next run.

    Engines make unix sockets below it, whose paths the kernel limits to 107 bytes.
    """
    inside = root / "r"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_DIRECTORY:
        inside.mkdir(mode=0o700, exist_ok=True)
        return inside
    note = root / "socket-directory"
    remembered = Path(note.read_text("utf-8").strip()) if note.exists() else None
    if remembered is not None and _is_ours(remembered):
        return remembered
    made = Path(tempfile.mkdtemp(prefix="sparkd-", dir=_short_parent()))
    disk.write_atomically(note, f"{made}\n")
    return made


def _short_parent() -> str:
    """The user's own runtime directory where it is short enough, else /tmp."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    room = LONGEST_SOCKET_DIRECTORY - len("/sparkd-12345678")
    usable = own and len(os.fsencode(own)) <= room and os.access(own, os.W_OK | os.X_OK)
    return own if usable else "/tmp"  # noqa: S108  # mkdtemp makes a private directory in it


def _is_ours(directory: Path) -> bool:
    """Someone else could have made a directory of that name after ours was cleaned away."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    private = stat.S_IMODE(found.st_mode) & 0o077 == 0
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and private


def write_configuration(
    state: CloneState, port: int, runtime: InstalledRuntime, models: Sequence[Offered]
) -> None:
    """Overwrites what a former run wrote; files of other names in `models.d` are kept."""
    settings: Mapping[str, object] = {
        "server": {
            "listen": [f"127.0.0.1:{port}"],
            "control_socket": str(state.control_socket),
            # Often enough to watch a model load on a terminal.
            "loading_comment_interval": "1s",
            "drain_timeout": "5s",
        },
        "paths": {
            "models": [str(state.catalogue)],
            "runtimes": str(state.runtimes),
            "state": str(state.root / "state"),
            "run": str(state.sockets),
        },
    }
    disk.write_atomically(state.config, _HEADER + tomli_w.dumps(settings))
    for model in models:
        text = _HEADER + tomli_w.dumps(model_file(model, runtime))
        disk.write_atomically(state.catalogue / f"{model.id}.toml", text)


_HEADER = "# Written by `make run`, again at every run.\n\n"

#: What one engine takes in all. Source: vLLM 0.32.0 for the CPU with a tiny model and a KV cache
#: of 64 MiB: 1.03 GB proportional set size of all its processes, measured 2026-11.
_TINY_BUDGET = {Device.CPU: "1.2GiB", Device.CUDA: "5GiB"}


def model_file(model: Offered, runtime: InstalledRuntime) -> Mapping[str, object]:
    """The model's TOML. Eager mode, one process less and a small KV cache: the fastest start."""
    engine: dict[str, object] = {"args": ["--enforce-eager"], "kv_cache": "64MiB"}
    budget = _TINY_BUDGET[runtime.device]
    match runtime.device:
        case Device.CPU:
            engine["env"] = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        case Device.CUDA:
            # vLLM asks for this share of the GPU to be free, whatever the KV cache's size.
            engine["args"] = ["--enforce-eager", "--gpu-memory-utilization", "0.05"]
    if not model.tiny:
        engine = {"args": ["--gpu-memory-utilization", "0.15"], "kv_cache": "2GiB"}
        engine["max_model_len"] = 8192
        budget = "10GiB"
    return {
        "source": model.source,
        "runtime": runtime.name,
        "description": model.description,
        "engine": engine,
        "memory": {"budget": budget},
    }
