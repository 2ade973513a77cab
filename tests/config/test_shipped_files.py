"""What is shipped and written down is what the code reads: conf/ and docs/configuration.md."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from sparkd.config import DAEMON_ROWS, MODEL_ROWS, Settings, load
from sparkd.config.kinds import InvalidValueError
from sparkd.config.rows import Setting
from sparkd.config.table import settings_table, with_tables
from sparkd.core.catalogue import Lifecycle, ModelId, QueuePolicy, Role, Task
from tests.config.conftest import SPARKD, Site

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "conf/models").glob("*.toml"))


def uncommented() -> str:
    text = (ROOT / "conf/sparkd.toml").read_text("utf-8")
    return re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)


def settings_of(site: Site, text: str) -> Settings:
    return load(site.write("shipped.toml", text)).settings


def test_the_shipped_file_changes_nothing(site: Site) -> None:
    shipped = settings_of(site, (ROOT / "conf/sparkd.toml").read_text("utf-8"))
    nothing = settings_of(site, "# nothing\n")
    assert (shipped.server, shipped.paths) == (nothing.server, nothing.paths)
    assert (shipped.memory, shipped.log) == (nothing.memory, nothing.log)


@pytest.mark.parametrize("row", DAEMON_ROWS, ids=lambda row: row.key)
def test_the_shipped_file_shows_each_setting_with_its_default(row: Setting[object]) -> None:
    node: object = tomllib.loads(uncommented())
    for key in row.path:
        assert isinstance(node, dict)
        assert key in node, f"conf/sparkd.toml does not show {row.key}"
        node = node[key]
    value = row.kind.parse(node, ROOT)
    if not row.unset:
        assert value == row.default


def test_the_shipped_file_is_right_when_all_of_it_is_uncommented(site: Site) -> None:
    shipped = settings_of(site, uncommented())
    assert shipped.server == settings_of(site, "# nothing\n").server


def test_the_shipped_file_has_nothing_that_is_not_a_setting() -> None:
    def keys(node: dict[str, object], path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        inner = [(n, (*path, k)) for k, n in node.items()]
        return {leaf for n, p in inner for leaf in (keys(n, p) if isinstance(n, dict) else {p})}

    assert keys(tomllib.loads(uncommented())) == {row.path for row in DAEMON_ROWS}


@pytest.mark.parametrize("rows", [DAEMON_ROWS, MODEL_ROWS], ids=["daemon", "model"])
def test_every_default_that_is_shown_reads_back_as_itself(rows: tuple[Setting[object]]) -> None:
    for row in rows:
        if shown := row.show_default():
            written = tomllib.loads(f"x = {shown}")["x"]
            assert row.kind.parse(written, ROOT) == row.default, row.key


@pytest.mark.parametrize("rows", [DAEMON_ROWS, MODEL_ROWS], ids=["daemon", "model"])
def test_every_row_is_documented_and_no_default_is_hidden(rows: tuple[Setting[object]]) -> None:
    assert len({row.path for row in rows}) == len(rows)
    for row in rows:
        assert row.doc.endswith("."), row.key
        assert row.required or row.unset or row.default is not None, row.key


def test_defaults_of_models_are_those_of_the_core() -> None:
    by_path = {row.path: row.default for row in MODEL_ROWS}
    for table, core in (("lifecycle", Lifecycle()), ("queue", QueuePolicy())):
        for name in core.__dataclass_fields__:
            assert by_path.pop((table, name)) == getattr(core, name)
    assert not [path for path in by_path if path[0] in {"lifecycle", "queue"}]


def test_a_required_setting_refuses_what_stands_in_for_it() -> None:
    """Else a model could be made of nothing but stand-ins without a complaint."""
    required = [row for row in MODEL_ROWS if row.required]
    assert {row.key for row in required} == {"source", "runtime", "memory.budget"}
    for row in required:
        with pytest.raises(InvalidValueError):
            row.kind.parse("", ROOT)


def test_the_examples_are_off_and_well_written(site: Site) -> None:
    for example in EXAMPLES:
        shutil.copy(example, site.root / "models")
    loaded = site.load()
    assert [model.id for model in loaded.settings.catalogue] == ["small"]
    assert loaded.warnings == ()


def test_the_examples_become_models_when_they_are_switched_on(site: Site) -> None:
    (site.root / "models/small.toml").unlink()
    site.write("sparkd.toml", SPARKD + '[memory]\nlimit = "110GiB"\n')
    for example in EXAMPLES:
        shutil.copy(example, site.root / "models")
        site.write(f"local/{example.name}.d/on.toml", "enabled = true\n")
    loaded = site.load(strict=False)
    catalogue = loaded.settings.catalogue
    assert {w.where.rpartition(": ")[2] for w in loaded.warnings} == {"runtime", "source"}
    roles = {model.id: (model.role, model.launch.task) for model in catalogue}
    assert roles == {
        ModelId("example-chat"): (Role.NORMAL, Task.GENERATE),
        ModelId("example-embed"): (Role.PINNED, Task.EMBED),
        ModelId("example-large"): (Role.EXCLUSIVE, Task.GENERATE),
    }


def test_the_tables_of_the_documentation_are_made_from_the_rows() -> None:
    document = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert with_tables(document) == document, (
        "run: python -m sparkd.config.table docs/configuration.md"
    )
    for row in (*DAEMON_ROWS, *MODEL_ROWS):
        assert row.doc in document


def test_a_table_has_a_row_per_setting() -> None:
    lines = settings_table(DAEMON_ROWS).splitlines()
    assert len(lines) == len(DAEMON_ROWS) + 2
    assert lines[2] == (
        '| `[server] listen` | list of "host:port" strings | `["127.0.0.1:8009"]` '
        "| Where clients connect. Loopback only. Port 0: any free one. |"
    )


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot find the markers of 'daemon settings'"):
        with_tables("# nothing")


def test_the_worked_example_of_the_documentation_loads(site: Site) -> None:
    document = (ROOT / "docs/configuration.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    site.write("models/qwen3.toml", example.replace("vllm-cuda", "vllm-cpu"))
    model = site.load().settings.catalogue.resolve("chat")
    assert (model.id, model.lifecycle.keep_alive) == ("qwen3", 1800.0)
