"""The settings tables of docs/configuration.md, made from the rows.

`python -m sparkd.config.table docs/configuration.md` writes them between their markers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sparkd.config.rows import DAEMON_ROWS, MODEL_ROWS, Setting

TABLES: dict[str, Sequence[Setting[object]]] = {
    "daemon settings": DAEMON_ROWS,
    "model settings": MODEL_ROWS,
}


def settings_table(rows: Sequence[Setting[object]]) -> str:
    """One Markdown table, a row per setting, in the order of the rows."""
    head = ["| Setting | Value | Default | What it does |", "|---|---|---|---|"]
    return "\n".join([*head, *(_line(row) for row in rows)])


def with_tables(document: str) -> str:
    """The document with the text between each pair of markers replaced by its table."""
    for name, rows in TABLES.items():
        begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not between.search(document):
            raise ValueError(f"cannot find the markers of '{name}' in the document")
        table = f"{begin}\n{settings_table(rows)}\n{end}"
        document = between.sub(lambda _found, table=table: table, document)  # type: ignore[misc]
    return document


def _line(row: Setting[object]) -> str:
    table = "".join(f"[{name}] " for name in [".".join(row.path[:-1])] if name)
    return f"| `{table}{row.path[-1]}` | {row.kind.name} | {_default(row)} | {row.doc} |"


def _default(row: Setting[object]) -> str:
    if row.required:
        return "**required**"
    return row.unset or f"`{row.show_default()}`"


def main(argv: Sequence[str]) -> None:
    for name in argv:
        file = Path(name)
        file.write_text(with_tables(file.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
