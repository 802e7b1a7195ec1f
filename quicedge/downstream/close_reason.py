"""The close reason of a connection as text, for logs and statistics."""

from __future__ import annotations

from quicedge.http.errors import error_name
from quicedge.quic.connection import Connection


def close_reason(connection: Connection) -> str | None:
    """How the connection ended, with error code and reason phrase if they were sent."""
    event, ending = connection.close_event, connection.ending
    if event is None or ending is None:
        return None
    if not ending.has_code:
        return ending.value
    name = error_name(event.error_code, application=event.frame_type is None)
    return f"{ending.value}: {name} {event.reason_phrase}".rstrip()
