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


def test_a_worker_imports_nothing_of_the_admin_api_and_no_rich() -> None:
    imported = imported_by("quicedge.worker.__main__", "quicedge.worker.main")
    assert {"structlog", "aioquic"} <= imported
    assert not imported & {"rich", "pygments", "uvicorn", "starlette", "prometheus_client", "click"}


def test_a_supervisor_without_the_admin_api_imports_neither_that_nor_quic() -> None:
    imported = imported_by("quicedge.plain_structlog", "quicedge.supervisor")
    assert {"structlog", "cryptography"} <= imported
    assert not imported & {"rich", "uvicorn", "starlette", "prometheus_client", "aioquic"}


@pytest.mark.parametrize("first", ["structlog", "rich"])
def test_what_is_imported_already_stays(first: str) -> None:
    assert "rich" in imported_by(first, "quicedge.plain_structlog", "rich")
