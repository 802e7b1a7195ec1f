"""What the processes of the edge import: each module costs every one of them memory and time."""

from __future__ import annotations

import subprocess
import sys

import pytest


def imported_by(*modules: str) -> set[str]:
    """The top-level packages in a fresh interpreter after these imports."""
    program = "; ".join(
        ["import sys", *(f"import {module}" for module in modules), "print(*sys.modules)"]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.decode().split()}


UNNEEDED = {
    "rich",
    "pygments",
    "uvicorn",
    "starlette",
    "prometheus_client",
    "typing_extensions",
    "certifi",
    "difflib",
}
"""Of no use in a process that serves."""

OPTIONAL = {
    "OpenSSL",
    "service_identity",
    "brotli",
    "dns",
    "zstandard",
    "redis",
    "limits",
    "opentelemetry",
    "h2",
    "hyperframe",
}
"""Imported where the configuration asks for what they do."""


def test_what_all_processes_share_has_nothing_of_the_admin_api_and_no_rich() -> None:
    imported = imported_by(
        "quicedge.lean_imports", "quicedge.supervisor", "quicedge.worker.rehearsal"
    )
    assert {"structlog", "aioquic", "cryptography"} <= imported
    assert not imported & {*UNNEEDED, *OPTIONAL}


PREPARED = """
import sys
from quicedge.worker.fork_server import prepare
prepare()
before = set(sys.modules)
import asyncio
import quicedge.worker.main
asyncio.run(asyncio.to_thread("a".encode, "idna"))
assert "uvloop" in before
print(*set(sys.modules) - before)
"""


def test_a_forked_worker_has_nothing_left_to_import() -> None:
    done = subprocess.run([sys.executable, "-c", PREPARED], capture_output=True, check=True)
    assert done.stdout.split() == []


def test_a_worker_that_is_a_fresh_interpreter_does_not_import_the_supervisor() -> None:
    imported = imported_by("quicedge.worker.__main__", "quicedge.worker.main")
    assert not imported & {*UNNEEDED, "click"}


@pytest.mark.parametrize("unused", ["rich", "typing_extensions"])
@pytest.mark.parametrize("first", ["structlog", "msgspec", "rich", "typing_extensions"])
def test_what_is_imported_already_stays(first: str, unused: str) -> None:
    assert unused in imported_by(first, "quicedge.lean_imports", unused)
