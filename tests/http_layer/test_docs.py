"""docs/http-api.md lists every code that a client can meet, with its status."""

from __future__ import annotations

import re
from pathlib import Path

from sparkd import errors
from sparkd.http.errors import FACES

DOCUMENT = Path(__file__).parents[2] / "docs" / "http-api.md"
#: Bases that are never raised themselves, and errors of the operator's side.
NOT_FOR_CLIENTS = {
    errors.AdmissionError,
    errors.InstanceError,
    errors.ConfigError,
    errors.ProvisionError,
}


def test_every_code_is_listed_with_its_status() -> None:
    listed = set(
        re.findall(r"^\| `(\w+)` \| (\d+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    )
    raised = {
        (cls.code, str(face.status)) for cls, face in FACES.items() if cls not in NOT_FOR_CLIENTS
    }
    assert listed == raised
