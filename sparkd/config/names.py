"""The kinds that know sparkd's own words: addresses, model names, weights, engine arguments.

Says what may be written; whether what is named exists is asked where the machine is looked at.
"""

from __future__ import annotations

import ipaddress
import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sparkd.config.kinds import (
    InvalidValueError,
    Kind,
    Mistake,
    quoted,
    refuse,
    resolve_path,
    text_of,
    toml_type,
    wanted,
    words,
)
from sparkd.core.engine import RESERVED_ENV, RESERVED_FLAGS

#: A model's id is also the name of its file, its unit and its directories.
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,255}")
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the daemon listens. Port 0 lets the kernel choose a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address() -> Kind[Address]:
    return Kind('"host:port" string', lambda raw, _base: _parse_address(text_of(raw)), quoted)


def _parse_address(written: str) -> Address:
    example = 'such as "127.0.0.1:8009" or "[::1]:8009"'
    host, colon, port = written.rpartition(":")
    if not colon or not host:
        raise refuse(f"'{written}' is not an address and a port", example)
    if not re.fullmatch(r"[0-9]{1,9}", port):
        raise refuse(f"'{port}' is not a port number", example)
    if int(port) > 65535:
        raise refuse(f"port {port} is out of range", "ports end at 65535")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise refuse(f"'{written}' is not an address and a port", "write IPv6 as [::1]:8009")
    host = host[1:-1] if bracketed else host
    if host == "localhost":
        return Address(host, int(port))
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        raise refuse(f"'{host}' is not an IP address or localhost", example) from None
    if not found.is_loopback:
        raise refuse(
            f"cannot listen on {host}: it is not a loopback address, and there are no API keys yet",
            "listen on 127.0.0.1 or ::1, and put a proxy that asks for a key in front",
        )
    return Address(host, int(port))


def alias() -> Kind[str]:
    def parse(raw: object, _base: Path) -> str:
        name = text_of(raw)
        if not _ALIAS.fullmatch(name):
            raise refuse(
                f"'{name}' cannot be an alias",
                "letters, digits and . _ - / : are allowed, a letter or digit first",
            )
        return name

    return Kind("string", parse, quoted)


def runtime_name() -> Kind[str]:
    def parse(raw: object, _base: Path) -> str:
        name = text_of(raw)
        if not MODEL_ID.fullmatch(name):
            raise refuse(
                f"'{name}' cannot be the name of a runtime",
                "a name is not a path: letters, digits and . _ -",
            )
        return name

    return Kind("string", parse, quoted)


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights come from: a directory of this machine, or a name on a hub."""

    weights: str
    local: bool


def source() -> Kind[Source]:
    return Kind("path or hub name", _parse_source, quoted)


def _parse_source(raw: object, base: Path) -> Source:
    written = text_of(raw)
    if written.startswith(("/", "~", "./", "../")) or written in {".", ".."}:
        return Source(str(resolve_path(written, base)), local=True)
    if _HUB_NAME.fullmatch(written):
        return Source(written, local=False)
    hint = 'a directory such as "/srv/weights/qwen3" or "./qwen3", or a hub name such as "org/name"'
    raise refuse(f"'{written}' is neither a directory nor a hub name", hint)


#: What the operator should write instead of a flag that sparkd sets itself.
_INSTEAD = {
    "--model": "source",
    "--revision": "revision",
    "--served-model-name": "aliases",
    "--max-model-len": "[engine] max_model_len",
    "--kv-cache-memory-bytes": "[engine] kv_cache",
}
#: `revision` becomes this flag here, so it may not be given twice.
_OWN_FLAGS = frozenset({"--revision"})


def engine_args() -> Kind[tuple[str, ...]]:
    plain = words()

    def parse(raw: object, base: Path) -> tuple[str, ...]:
        args = plain.parse(raw, base)
        mistakes = [
            Mistake(message, hint, f"[{index}]")
            for index, arg in enumerate(args)
            for message, hint in _wrong_argument(index, arg)
        ]
        if mistakes:
            raise InvalidValueError(*mistakes)
        return args

    return Kind(plain.name, parse, plain.show)


def _wrong_argument(index: int, arg: str) -> list[tuple[str, str]]:
    if index == 0 and not arg.startswith("-"):
        return [
            (
                f"'{arg}' stands before any flag: vLLM would take it for the model",
                "name it `source`",
            )
        ]
    first, _, rest = arg.partition(" ")
    if rest and first.startswith("--") and "=" not in first:
        hint = f"write two: {quoted(first)}, {quoted(rest.strip())}"
        return [(f"'{arg}' is one word to vLLM", hint)]
    flag = _reserved_flag(arg)
    if flag is not None:
        setting = _INSTEAD.get(flag)
        hint = f"use `{setting}` instead" if setting else "remove it: sparkd chooses it itself"
        return [(f"{flag} is set by sparkd", hint)]
    return []


def _reserved_flag(arg: str) -> str | None:
    """The reserved flag that vLLM would take this for: `--max_model_len=1`, `--served x` too."""
    written = arg.partition("=")[0].replace("_", "-")
    if written in RESERVED_FLAGS | _OWN_FLAGS:
        return written
    # vLLM's parser (argparse) accepts any unambiguous beginning of a long flag.
    if not written.startswith("--") or written == "--":
        return None
    return next((flag for flag in sorted(RESERVED_FLAGS) if flag.startswith(written)), None)


def environment(reserved: frozenset[str] = RESERVED_ENV) -> Kind[Mapping[str, str]]:
    def parse(raw: object, _base: Path) -> Mapping[str, str]:
        if not isinstance(raw, dict):
            raise wanted("a table", raw, 'such as { HF_HOME = "/srv/hf" }')
        mistakes = [
            Mistake(message, hint, f".{name}")
            for name, value in raw.items()
            for message, hint in _wrong_variable(name, value, reserved)
        ]
        if mistakes:
            raise InvalidValueError(*mistakes)
        return MappingProxyType({str(name): str(value) for name, value in raw.items()})

    return Kind("table of strings", parse, lambda _value: "{}")


def _wrong_variable(name: str, value: object, reserved: frozenset[str]) -> list[tuple[str, str]]:
    if not _ENV_NAME.fullmatch(name):
        return [
            (f"'{name}' cannot be the name of a variable", "letters, digits and _, no digit first")
        ]
    if name in reserved:
        return [(f"{name} is set by sparkd", "remove it: sparkd chooses it for each instance")]
    if not isinstance(value, str):
        hint = f'write it in quotes: {name} = "{value}"'
        return [(f"must be a string, not {toml_type(value)}", hint)]
    if "\0" in value:
        return [("contains a NUL, which no variable can hold", "remove it")]
    return []


def command() -> Kind[tuple[str, ...]]:
    """A runtime's argv prefix: a path inside the runtime is made absolute."""
    plain = words()

    def parse(raw: object, base: Path) -> tuple[str, ...]:
        argv = plain.parse(raw, base)
        if not argv or not argv[0]:
            raise refuse("must have at least 1 item", 'such as ["bin/vllm", "serve"]')
        return (os.path.normpath(base / argv[0]), *argv[1:])

    return Kind(plain.name, parse, plain.show)
