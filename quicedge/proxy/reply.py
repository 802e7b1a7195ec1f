"""A complete response that a filter gives in place of the origin's."""

from __future__ import annotations

from dataclasses import dataclass

from quicedge.http.message import Fields, Response
from quicedge.http.phrases import reason_phrase
from quicedge.telemetry.outcomes import Outcome


@dataclass(slots=True)
class Reply:
    """A response with its whole body; `reason` is for logs only."""

    response: Response
    body: bytes = b""
    outcome: Outcome = Outcome.COMPLETE
    reason: str = ""


def text_reply(
    status: int,
    fields: Fields | None = None,
    *,
    outcome: Outcome = Outcome.COMPLETE,
    reason: str = "",
) -> Reply:
    """A reply whose body is its status in words."""
    head: Fields = [(b"content-type", b"text/plain; charset=utf-8"), *(fields or ())]
    body = f"{status} {reason_phrase(status)}\n".encode()
    return Reply(Response(status, head), body, outcome, reason)
