"""Responses of the admin API."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response


def answer_json(value: Any, status: int = 200) -> Response:
    """A value as JSON, which browsers neither keep nor take for anything else."""
    return Response(
        msgspec.json.encode(value) + b"\n",
        status,
        {"cache-control": "no-store", "x-content-type-options": "nosniff"},
        media_type="application/json",
    )
