"""Is what a model needs on this disk? Blocks for milliseconds and changes nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sparkd.core.catalogue import LaunchSpec, Runtime
from sparkd.errors import ModelUnavailableError

_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth", "*.npz", "*.tensors")


def check(launch: LaunchSpec) -> None:
    """Raises ModelUnavailableError that names what is missing and where it is expected."""
    try:
        _check_runtime(launch.runtime)
        if _is_path(launch.weights):
            _check_directory(Path(launch.weights).expanduser())
        else:
            _check_cache(launch.weights, _hub_cache(launch))
    except (OSError, RuntimeError) as error:  # not to be looked at, or nobody's home
        raise ModelUnavailableError(
            f"cannot look for weights '{launch.weights}': {error}",
            hint="the user who runs sparkd must be able to read them and every directory above",
        ) from error


def _check_runtime(runtime: Runtime) -> None:
    hint = "`make run` builds the default runtime; `sparkd check` lists what each model needs"
    if not Path(runtime.root).is_dir():
        raise ModelUnavailableError(
            f"cannot use runtime '{runtime.name}': there is no directory {runtime.root}", hint=hint
        )
    program = runtime.command[0]
    found = shutil.which(Path(runtime.root, program) if "/" in program else program)
    if found is None:
        raise ModelUnavailableError(
            f"cannot use runtime '{runtime.name}': {program} is not an executable file", hint=hint
        )


def _is_path(weights: str) -> bool:
    return weights.startswith(("/", "./", "../", "~")) or Path(weights).is_dir()


def _check_directory(directory: Path) -> None:
    hint = f"put the model's files into {directory}; `sparkd check` lists what each model needs"
    if directory.suffix == ".gguf" and directory.is_file():
        return
    if not directory.is_dir():
        raise ModelUnavailableError(
            f"cannot find weights: there is no directory {directory}", hint=hint
        )
    has_config = any((directory / name).is_file() for name in ("config.json", "params.json"))
    has_weights = any(next(directory.glob(pattern), None) for pattern in _WEIGHT_FILES)
    if not has_config and not next(directory.glob("*.gguf"), None):
        raise ModelUnavailableError(f"cannot find config.json in {directory}", hint=hint)
    if not has_weights:
        raise ModelUnavailableError(
            f"cannot find weights (*.safetensors) in {directory}", hint=hint
        )


def _hub_cache(launch: LaunchSpec) -> Path:
    """Where the engine will look. Source: huggingface_hub.constants, 1.x (2026)."""
    env = {**os.environ, **launch.runtime.env, **launch.env}
    home = env.get("HOME", str(Path.home()))
    xdg = env.get("XDG_CACHE_HOME", f"{home}/.cache")
    hub = env.get("HF_HOME", f"{xdg}/huggingface")
    return Path(env.get("HF_HUB_CACHE", f"{hub}/hub")).expanduser()


def _check_cache(name: str, cache: Path) -> None:
    snapshots = cache / f"models--{name.replace('/', '--')}" / "snapshots"
    # Entries are links into blobs/: a download that was broken off leaves dangling ones.
    complete = any(one.exists() for one in snapshots.glob("*/config.json"))
    if not complete:
        raise ModelUnavailableError(
            f"cannot find weights of '{name}': they are not in the cache {cache}",
            hint=f"download '{name}' into that cache, or give a directory; "
            "engines run offline, `sparkd check` lists what each model needs",
        )
