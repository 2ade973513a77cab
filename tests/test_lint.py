"""ruff, mypy and the import contracts, as tests: what they say is the failure's message."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sparkd"

TOOLS = {
    "ruff check": (sys.executable, "-m", "ruff", "check", "--no-cache", "."),
    "ruff format": (sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "."),
    "mypy": (sys.executable, "-m", "mypy"),
    "import-linter": (str(Path(sys.executable).with_name("lint-imports")), "--no-cache"),
}

#: From the top; a module may import from rows below its own, and from its own part.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli", "daemon", "provision"),
    ("gateway", "api", "host", "config"),
    ("http",),
    ("supervisor",),
    ("core",),
    ("errors", "__init__"),
)
READ_CONFIG = {"daemon", "cli", "provision", "config"}
IMPURE = {
    "aiohttp",
    "asyncio",
    "logging",
    "os",
    "pathlib",
    "random",
    "socket",
    "subprocess",
    "time",
}
CLI_ONLY = {"typer", "rich", "click"}


@pytest.mark.lint
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tool", TOOLS)
def test_the_tree_is_clean(tool: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        TOOLS[tool], cwd=ROOT, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        pytest.fail(f"{tool}:\n{done.stdout}{done.stderr}", pytrace=False)


def part_of(module: str) -> str:
    """`sparkd.core.fleet` -> `core`."""
    return [*module.split("."), "__init__"][1]


def modules() -> dict[str, Path]:
    """By dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if "data" not in path.parts
    }


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str() as module, names=names):
                found |= {f"{module}.{a.name}" if module == "sparkd" else module for a in names}
            case _:
                pass
    return found


def rank(part: str) -> int:
    return next(index for index, row in enumerate(LAYERS) if part in row)


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    own = part_of(module)
    for imported in imports_of(modules()[module]):
        top = imported.split(".")[0]
        assert not (own == "core" and top in IMPURE), f"the core imports {top}"
        assert own in ("cli", "provision") or top not in CLI_ONLY, f"{own} imports {top}"
        if top != "sparkd":
            continue
        other = part_of(imported)
        other = other if any(other in row for row in LAYERS) else "__init__"  # sparkd.__version__
        assert other == own or rank(other) > rank(own), f"{own} imports {other}"
        assert other != "config" or own in READ_CONFIG, f"{own} reads the configuration"


def test_no_module_is_too_long_without_saying_why() -> None:
    for module, path in modules().items():
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        docstring = ast.get_docstring(ast.parse(text)) or ""
        assert docstring, f"{module} does not say what it is"
        assert lines <= 600, f"{module} has {lines} lines: split it"
        assert lines <= 400 or "lines" in docstring, f"{module} has {lines} lines and no reason"
