"""The operator's files as frozen settings: `load` reads them, all mistakes are told at once.

Only `daemon`, `cli` and `provision` import this package; everyone else gets plain values.
"""

from sparkd.config.names import MODEL_ID, Address
from sparkd.config.rows import DAEMON_ROWS, MODEL_ROWS, LogFormat, LogLevel, Setting
from sparkd.config.runtimes import RUNTIME_FILE
from sparkd.config.settings import (
    DEFAULT_PATH,
    Loaded,
    LogSettings,
    MemorySettings,
    PathSettings,
    ServerSettings,
    Settings,
    load,
)

__all__ = [
    "DAEMON_ROWS",
    "DEFAULT_PATH",
    "MODEL_ID",
    "MODEL_ROWS",
    "RUNTIME_FILE",
    "Address",
    "Loaded",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "MemorySettings",
    "PathSettings",
    "ServerSettings",
    "Setting",
    "Settings",
    "load",
]
