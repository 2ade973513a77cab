"""Builds a venv runtime from a recipe, or registers an installed vLLM as one.

A runtime is a directory with a `runtime.toml`, which is written last: without it the directory is
half-made and is built again. Venvs hold their own path, so one is built where it stays. One build
of a name at a time: the lock is also held by the installer, so that it outlasts a killed parent.
"""

from __future__ import annotations

import functools
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path

import tomli_w

from sparkd.core.catalogue import Device
from sparkd.errors import ProvisionError
from sparkd.provision import disk
from sparkd.provision.commands import CommandFailedError, run_command
from sparkd.provision.installers import Installer, explain, find_installer
from sparkd.provision.progress import Progress, Step
from sparkd.provision.recipes import Fallback, Pin, PythonVersion, Recipe, normal

RECORD = "runtime.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledRuntime:
    """What `runtime.toml` says of a runtime: its name, its directory and its Python."""

    name: str
    device: Device
    directory: Path
    python: Path


def build_runtime(recipe: Recipe, runtimes: Path, progress: Progress) -> InstalledRuntime:
    """Builds `recipe` below `runtimes`, or reuses what the same recipe built there before."""
    directory = runtimes / recipe.name
    waiting = functools.partial(_say_waiting, progress, recipe.name)
    with disk.locked(runtimes / f".{recipe.name}.lock", waiting) as lock:
        if not is_built(recipe, directory):
            _remove(directory, progress)
            disk.require_free(runtimes, recipe.disk, f"build the runtime '{recipe.name}'")
            _Build(recipe, directory, lock, progress).run()
    return read_runtime(directory)


def is_built(recipe: Recipe, directory: Path) -> bool:
    """Whether `directory` is complete and was made from this very recipe."""
    try:
        record = tomllib.loads((directory / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    provenance = record.get("provenance", {})
    return provenance.get("digest") == recipe.digest and Path(provenance["python"]).exists()


def read_runtime(directory: Path) -> InstalledRuntime:
    """The runtime that was built or registered in `directory`."""
    record = tomllib.loads((directory / RECORD).read_text("utf-8"))
    return InstalledRuntime(
        name=record["name"],
        device=Device(record["device"]),
        directory=directory,
        python=Path(record["provenance"]["python"]),
    )


def register_runtime(
    place: Path, runtimes: Path, name: str, progress: Progress
) -> InstalledRuntime:
    """Makes a vLLM that is already installed in the venv `place` a runtime. Copies nothing."""
    venv = place.expanduser().absolute()
    python = venv / "bin" / "python"
    if not python.exists():
        raise ProvisionError(
            f"cannot use {place} as a runtime: {python} does not exist",
            hint="name the directory of a venv that has vLLM, the one with bin/python in it",
        )
    found = _metadata_version(venv)
    if found is not None and _registered(runtimes / name) == (str(venv), found):
        return read_runtime(runtimes / name)
    with progress.step(f"Checking the vLLM in {venv}"):
        version = _imported_version(python)
    program = venv / "bin" / "vllm"
    command = [str(program)] if program.exists() else [str(python), "-m", _CLI_MODULE]
    record = {
        "name": name,
        "kind": "venv",
        "device": Device.CPU if "cpu" in version else Device.CUDA,
        "command": [*command, "serve"],
        "env": {},
        "provenance": {"registered": str(venv), "python": str(python), **_made()}
        | {"versions": {"vllm": version}},
    }
    (runtimes / name).mkdir(parents=True, exist_ok=True)
    disk.write_atomically(runtimes / name / RECORD, tomli_w.dumps(record))
    return read_runtime(runtimes / name)


def _metadata_version(venv: Path) -> str | None:
    vllm = _distributions(venv).get("vllm")
    return vllm.version if vllm else None


def _registered(directory: Path) -> tuple[str, str] | None:
    """Which venv was registered there, and with which vLLM."""
    try:
        provenance = tomllib.loads((directory / RECORD).read_text("utf-8"))["provenance"]
        return provenance["registered"], provenance["versions"]["vllm"]
    except (OSError, ValueError, KeyError):
        return None


#: `python -m` of this is the `vllm` program. Source: vLLM 0.32.0, its entry point.
_CLI_MODULE = "vllm.entrypoints.cli.main"
#: `vllm --version` takes 10 s and fails where the distribution has another name.
_ASK_VERSION = "import vllm, importlib.metadata as m; print(m.version('vllm'))"


def _imported_version(python: Path) -> str:
    try:
        return run_command([str(python), "-c", _ASK_VERSION])[-1]
    except (CommandFailedError, OSError) as error:
        last = error.tail[-1:] if isinstance(error, CommandFailedError) else [str(error)]
        raise ProvisionError(
            f"cannot use {python} as a runtime: it cannot import vllm: {' '.join(last)}",
            hint=f"try it: {python} -c 'import vllm'",
        ) from None


class _Build:
    """One build, step by step."""

    def __init__(self, recipe: Recipe, directory: Path, lock: int, progress: Progress):
        self._recipe = recipe
        self._directory = directory
        self._lock = lock
        self._progress = progress
        self._python = directory / "bin" / "python"

    def run(self) -> None:
        base = find_python(self._recipe)
        with self._progress.step(f"Making a venv for the runtime '{self._recipe.name}'"):
            self._must([base, "-m", "venv", "--without-pip", str(self._directory)])
        with self._progress.step("Looking for uv"):
            installer = find_installer()
        for fallback in self._recipe.fallbacks:
            self._install_with_fallback(installer, fallback)
        elsewhere = frozenset[str]().union(*(f.packages for f in self._recipe.fallbacks))
        pins = [pin for pin in self._recipe.pins if pin.name not in elsewhere]
        with self._progress.step(f"Installing {len(pins)} packages with {installer.name}") as step:
            try:
                self._install(installer, pins, step)
            except CommandFailedError as error:
                raise self._failure("its packages", error) from None
        self._write_aliases()
        with self._progress.step("Checking that it works"):
            self._check()
        self._write_record(installer)

    def _install_with_fallback(self, installer: Installer, fallback: Fallback) -> None:
        """What pip is configured with first: a company's mirror, or wheels on this disk."""
        pins = [pin for pin in self._recipe.pins if pin.name in fallback.packages]
        what = " ".join(map(str, pins))
        with self._progress.step(f"Installing {what} with {installer.name}") as step:
            try:
                self._install(installer, pins, step)
            except CommandFailedError as first:
                step.outcome = f"from {fallback.index}"
                step.detail(step.outcome)
                try:
                    self._install(installer, pins, step, fallback.index)
                except CommandFailedError as second:
                    raise self._nowhere(what, fallback, first, second) from None

    def _install(
        self, installer: Installer, pins: Sequence[Pin], step: Step, index: str | None = None
    ) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.write("".join(f"{pin}\n" for pin in pins))
            requirements.flush()
            argv = installer.install(self._python, Path(requirements.name), index)
            env = installer.env
            run_command(argv, env=env, cwd=self._directory, hold=self._lock, on_line=step.detail)

    def _nowhere(
        self,
        what: str,
        fallback: Fallback,
        first: CommandFailedError,
        second: CommandFailedError,
    ) -> ProvisionError:
        self._show(second)
        here, hint = explain(first.tail)
        there, _ = explain(second.tail)
        return ProvisionError(
            f"cannot install {what}: neither where pip is configured to look ({here}) "
            f"nor in {fallback.index} ({there})",
            hint=hint,
        )

    def _failure(self, what: str, error: CommandFailedError) -> ProvisionError:
        self._show(error)
        cause, hint = explain(error.tail)
        name = self._recipe.name
        return ProvisionError(f"cannot install {what} of the runtime '{name}': {cause}", hint=hint)

    def _must(self, argv: Sequence[str]) -> None:
        try:
            run_command(argv, hold=self._lock)
        except CommandFailedError as error:
            raise self._failure("the venv", error) from None

    def _show(self, error: CommandFailedError) -> None:
        for line in error.tail:
            self._progress.line(f"    {line}", style="dim")

    def _write_aliases(self) -> None:
        """A second metadata directory for a distribution whose code asks for another name."""
        for alias in self._recipe.aliases:
            found = _distributions(self._directory).get(alias.distribution)
            if found is None:
                raise ProvisionError(
                    f"cannot give '{alias.distribution}' the name '{alias.name}': not installed"
                )
            place = self._site_packages() / f"{alias.name}-{alias.version}.dist-info"
            place.mkdir(exist_ok=True)
            text = f"Metadata-Version: 2.1\nName: {alias.name}\nVersion: {alias.version}\n"
            (place / "METADATA").write_text(text, "utf-8")

    def _site_packages(self) -> Path:
        return next((self._directory / "lib").glob("python3.*/site-packages"))

    def _check(self) -> None:
        """Versions are read from metadata: `vllm --version` takes 10 s."""
        name = self._recipe.name
        installed = {found: dist.version for found, dist in _distributions(self._directory).items()}
        for package, version in self._recipe.versions.items():
            if installed.get(package) != version:
                raise ProvisionError(
                    f"cannot use the runtime '{name}': {package} is "
                    f"{installed.get(package, 'missing')}, and {version} is wanted"
                )
        if unwanted := self._recipe.forbidden & installed.keys():
            names = ", ".join(sorted(unwanted))
            raise ProvisionError(
                f"cannot use the runtime '{name}': it must not have {names}",
                hint="with them vLLM's build for the CPU cannot load a model",
            )
        self._check_imports()

    def _check_imports(self) -> None:
        if not self._recipe.imports:
            return
        code = "import " + ", ".join(self._recipe.imports)
        try:
            run_command([str(self._python), "-c", code], env=self._recipe.env, hold=self._lock)
        except CommandFailedError as error:
            self._show(error)
            raise ProvisionError(
                f"cannot use the runtime '{self._recipe.name}': '{code}' failed: "
                f"{' '.join(error.tail[-1:])}"
            ) from None

    def _write_record(self, installer: Installer) -> None:
        recipe = self._recipe
        versions = {name: d.version for name, d in _distributions(self._directory).items()}
        record = {
            "name": recipe.name,
            "kind": recipe.kind,
            "device": recipe.device,
            "command": list(recipe.command),
            "env": dict(recipe.env),
            "provenance": {
                "recipe": recipe.source.name,
                "digest": recipe.digest,
                "installer": installer.name,
                "python": str(self._python.absolute()),
                **_made(),
                "versions": dict(sorted(versions.items())),
            },
        }
        disk.write_atomically(self._directory / RECORD, tomli_w.dumps(record))


def find_python(recipe: Recipe) -> str:
    """An interpreter the recipe accepts: this one, else the newest on PATH that can make venvs."""
    if recipe.accepts(sys.version_info[:2]):
        return sys.executable
    for version in _accepted(recipe):
        found = shutil.which(f"python{version[0]}.{version[1]}")
        if found and _works(found):
            return found
    raise ProvisionError(
        f"cannot build the runtime '{recipe.name}': no Python from {recipe.python_range} was found",
        hint="install one that has the venv module, such as python3.12 and python3.12-venv",
    )


def _accepted(recipe: Recipe) -> list[PythonVersion]:
    newest = (3, 30)
    minors = range(newest[1], recipe.python_from[1] - 1, -1)
    return [version for minor in minors if recipe.accepts(version := (3, minor))]


def _works(python: str) -> bool:
    """A version manager's shim is on PATH for versions that it does not run."""
    try:
        run_command([python, "-c", "import venv"])
    except (CommandFailedError, OSError):
        return False
    return True


def _distributions(venv: Path) -> Mapping[str, Distribution]:
    places = [str(place) for place in (venv / "lib").glob("python3.*/site-packages")]
    return {normal(dist.metadata["Name"]): dist for dist in distributions(path=places)}


def _made() -> dict[str, str]:
    return {"made": datetime.now(UTC).isoformat(timespec="seconds")}


def _remove(directory: Path, progress: Progress) -> None:
    if directory.exists():
        with progress.step(f"Removing what an unfinished or older build left in {directory}"):
            (directory / RECORD).unlink(missing_ok=True)
            shutil.rmtree(directory)


def _say_waiting(progress: Progress, name: str, holder: str) -> None:
    progress.line(f"    waiting: process {holder} is building the runtime '{name}'")
