"""Makes the clone's own `.venv` and installs sparkd into it, editable. The first step of `make`.

Runs under whatever Python 3.11+ there is, from the clone's root, before anything is installed: it
imports the standard library and those modules of sparkd that need nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sparkd.errors import ProvisionError
from sparkd.provision import disk
from sparkd.provision.commands import PATIENCE
from sparkd.provision.installers import explain

INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main() -> int:
    extras = sys.argv[1:]
    try:
        prepare_venv(Path.cwd(), extras)
    except ProvisionError as error:
        print(f"error: {error.sentence()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot go on: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next run goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


def prepare_venv(root: Path, extras: Sequence[str]) -> None:
    """Returns at once when `.venv` already has sparkd with these extras."""
    venv = root / ".venv"
    digest = _digest(root)
    if _installed(venv, digest) >= set(extras):
        return
    with disk.locked(root / ".run" / "venv.lock", _say_waiting):
        have = _installed(venv, digest)
        if not have >= set(extras):
            _make_venv(venv)
            _install(root, venv, sorted(have | set(extras)), digest)


def _say_waiting(holder: str) -> None:
    print(f"    waiting: process {holder} is making the same .venv", flush=True)


def _digest(root: Path) -> str:
    """Changes when the dependencies may have, or when the clone was moved: venvs hold paths."""
    pyproject = (root / "pyproject.toml").read_bytes()
    return hashlib.sha256(pyproject + str(root.absolute()).encode()).hexdigest()


def _installed(venv: Path, digest: str) -> set[str]:
    """The extras that a finished installation of this very pyproject has."""
    try:
        stamp = json.loads((venv / ".sparkd").read_text("utf-8"))
    except (OSError, ValueError):
        return set()
    usable = stamp["digest"] == digest and (venv / "bin" / "python").exists()
    return {"", *stamp["extras"]} if usable else set()


def _make_venv(venv: Path) -> None:
    """A venv whose installation was cut short is made anew: pip cannot mend half a package."""
    unfinished = venv / ".unfinished"
    if unfinished.exists() or not _runs(venv / "bin" / "python"):
        if importlib.util.find_spec("ensurepip") is None:
            version = ".".join(map(str, sys.version_info[:2]))
            raise ProvisionError(
                f"cannot make a venv: {sys.executable} has no ensurepip",
                hint=f"apt install python3-venv (or python{version}-venv), then run this again",
            )
        _run("Making .venv", [sys.executable, "-m", "venv", "--clear", str(venv)])
    unfinished.touch()


def _runs(python: Path) -> bool:
    try:
        return subprocess.run([str(python), "-c", "import pip"], check=False).returncode == 0
    except OSError:
        return False


def _install(root: Path, venv: Path, extras: Sequence[str], digest: str) -> None:
    python = str(venv / "bin" / "python")
    wanted = f".[{','.join(name for name in extras if name)}]"
    what = f"Installing sparkd{wanted[1:]} into .venv"
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-e", wanted]
    uv = shutil.which("uv")
    try:
        _run(what, [uv, "pip", "install", "--python", python, "-e", wanted] if uv else pip, root)
    except ProvisionError:
        if not uv:
            raise
        _run(f"{what}, with pip", pip, root)  # pip may be configured with what uv does not read
    stamp = {"digest": digest, "extras": [name for name in extras if name]}
    disk.write_atomically(venv / ".sparkd", json.dumps(stamp))
    (venv / ".unfinished").unlink(missing_ok=True)


def _run(what: str, argv: Sequence[str], cwd: Path | None = None) -> None:
    """Runs it to its end with the seconds shown; its output only when it fails."""
    print(f"... {what}", flush=True)
    began = time.monotonic()
    with subprocess.Popen(
        argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        try:
            output = _wait(child, began)
        except BaseException:
            _end(child)
            raise
    took = time.monotonic() - began
    if child.returncode != 0:
        lines = output.decode("utf-8", "replace").splitlines()[-15:]
        print("\n".join(f"    {line}" for line in lines), flush=True)
        cause, hint = explain(lines)
        raise ProvisionError(f"{what} failed: {cause}", hint=hint)
    print(f"  ✓ {what} ({took:.1f} s)", flush=True)


def _wait(child: subprocess.Popen[bytes], began: float) -> bytes:
    """What the child printed. On a terminal the seconds count up meanwhile."""
    while True:
        try:
            return child.communicate(timeout=1.0)[0]
        except subprocess.TimeoutExpired:
            if sys.stdout.isatty():
                print(f"\r    {time.monotonic() - began:.0f} s\r", end="", flush=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main())
