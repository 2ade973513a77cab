"""Which files make up each model: directories over directories, drop-ins, masks.

The habit is systemd's: the same file name in a later directory replaces, `<id>.toml.d/*.toml`
merges on top, and a file that is empty or a link to /dev/null masks. Reads no settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkd.config.documents import Table, read_document
from sparkd.config.names import MODEL_ID
from sparkd.config.problems import Findings, Place, Weight
from sparkd.core.catalogue import ModelId

_SUFFIX = ".toml"
_DROP_INS = ".toml.d"
#: What editors and package managers leave beside a file.
_LEFTOVER = re.compile(r"\..*|.*~|.*\.(dpkg|rpm|ucf)-?[a-z]*")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The file that defines a model, and those that are merged on top of it, in order."""

    id: ModelId
    file: Path
    drop_ins: tuple[Path, ...]


def find_model_files(directories: Sequence[Path], findings: Findings) -> tuple[ModelFile, ...]:
    """Every model that is not masked, by id. Directories that do not exist are passed over."""
    files: dict[str, Path] = {}
    drop_ins: dict[str, list[Path]] = {}
    for directory in directories:
        for entry in _entries(directory, findings):
            if entry.name.endswith(_DROP_INS):
                drop_ins.setdefault(entry.name.removesuffix(_DROP_INS), []).append(entry)
            elif _names_a_model(entry, findings):
                files[entry.name.removesuffix(_SUFFIX)] = entry
    for orphan in sorted(drop_ins.keys() - files.keys()):
        _warn_about_orphan(orphan, drop_ins[orphan][0], findings)
    return tuple(
        ModelFile(ModelId(name), file, _merged_drop_ins(drop_ins.get(name, ()), findings))
        for name, file in sorted(files.items())
        if not is_masked(file)
    )


def read_model_file(source: ModelFile, findings: Findings) -> Table | None:
    """The model's tree with its drop-ins merged; None if any of the files cannot be used."""
    read = [read_document(file, findings) for file in (source.file, *source.drop_ins)]
    tables = [table for table in read if table is not None]
    if len(tables) < len(read):
        return None
    for drop_in in tables[1:]:
        tables[0].merge(drop_in)
    return tables[0]


def is_masked(file: Path) -> bool:
    """Empty, or a link to /dev/null: the operator wants this name to define nothing."""
    try:
        return os.path.realpath(file) == os.devnull or (file.is_file() and file.stat().st_size == 0)
    except OSError:
        return False  # reading it will say why


def _entries(directory: Path, findings: Findings) -> list[Path]:
    place = Place(directory)
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        findings.add(place, "cannot list this directory: it is a file", "name its directory")
        return []
    except OSError as error:
        hint = "the user that runs sparkd must be able to read it"
        findings.add(place, f"cannot list this directory: {error.strerror or error}", hint)
        return []
    return [entry for entry in entries if not _LEFTOVER.fullmatch(entry.name)]


def _names_a_model(entry: Path, findings: Findings) -> bool:
    if entry.suffix != _SUFFIX:
        hint = "rename it to <model id>.toml, or move it out of this directory"
        findings.add(Place(entry), "is not named like a model file", hint)
        return False
    if not MODEL_ID.fullmatch(entry.stem):
        wish = re.sub(r"[^A-Za-z0-9._-]+", "-", entry.stem).lstrip("._-")[:128] or "my-model"
        findings.add(
            Place(entry),
            f"cannot name a model '{entry.stem}': letters, digits and . _ - are allowed, "
            "a letter or digit first",
            f"rename it, such as '{wish}.toml'; other names go into `aliases`",
        )
        return False
    return True


def _merged_drop_ins(directories: Iterable[Path], findings: Findings) -> tuple[Path, ...]:
    by_name: dict[str, Path] = {}
    for directory in directories:
        for entry in _entries(directory, findings):
            if entry.suffix == _SUFFIX:
                by_name[entry.name] = entry
            else:
                hint = "rename it to end in .toml, or move it out of this directory"
                findings.add(Place(entry), "is not named like a drop-in", hint)
    return tuple(file for _, file in sorted(by_name.items()) if not is_masked(file))


def _warn_about_orphan(name: str, directory: Path, findings: Findings) -> None:
    findings.add(
        Place(directory),
        f"these drop-ins change nothing: there is no {name}.toml",
        "a drop-in directory is named after the file it changes: <model id>.toml.d",
        Weight.WARNING,
    )
