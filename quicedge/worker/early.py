"""Requests of 0-RTT data that must not run before the handshake is complete (RFC 8470)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quicedge.http.message import Field, Request

if TYPE_CHECKING:
    from quicedge.worker.session import RequestStream

SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
"""Methods that may be run twice without harm (RFC 9110 section 9.2.1)."""


@dataclass(slots=True)
class HeldRequest:
    """A request and what has come of its body, not credited to the client.

    The stream's flow-control window bounds it.
    """

    stream: RequestStream
    request: Request
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    trailers: Sequence[Field] = ()
