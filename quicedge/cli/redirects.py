"""Redirect handling of the client (RFC 9110 section 15.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from quicedge.cli.url import Target, redirected
from quicedge.http.message import Field, Fields

REDIRECTS = frozenset((301, 302, 303, 307, 308))
_FOR_ONE_HOST = frozenset((b"authorization", b"cookie"))
"""Fields that must not be sent to another host."""
_OF_CONTENT = frozenset((b"content-length", b"content-type", b"content-encoding"))


@dataclass(frozen=True)
class Request:
    """A request to send."""

    target: Target
    method: str = "GET"
    fields: Fields = field(default_factory=list)
    body: bytes = b""

    @property
    def authority(self) -> str:
        """`:authority`: from `-H Host:` as in curl, otherwise from the URL."""
        for name, value in self.fields:
            if name == b"host":
                return value.decode("latin-1")
        return self.target.authority

    @property
    def sent_fields(self) -> Fields:
        """Fields to send: `host` becomes `:authority`, userinfo becomes `authorization`."""
        fields = [(name, value) for name, value in self.fields if name != b"host"]
        credentials = self.target.credentials
        if credentials is not None and not any(name == b"authorization" for name, _ in fields):
            fields.append((b"authorization", credentials))
        return fields


def location_of(status: int, fields: Sequence[Field]) -> bytes | None:
    """The target of a redirect; None for other responses."""
    if status not in REDIRECTS:
        return None
    return next((value for name, value in fields if name == b"location"), None)


def next_request(request: Request, status: int, location: bytes) -> Request:
    """The request that follows a redirect; raises UrlError for targets other than https."""
    target = redirected(request.target, location)
    method, body, fields = request.method, request.body, request.fields
    # By convention 301 and 302 change POST to GET, and 303 everything but HEAD.
    if (status in (301, 302) and method == "POST") or (status == 303 and method != "HEAD"):
        method, body = "GET", b""
        fields = [item for item in fields if item[0] not in _OF_CONTENT]
    # -H Host: only applies to the first host.
    fields = [item for item in fields if item[0] != b"host"]
    if target.is_same_origin(request.target):
        if target.credentials is None:
            target = replace(target, credentials=request.target.credentials)
    else:
        fields = [item for item in fields if item[0] not in _FOR_ONE_HOST]
    return Request(target, method, fields, body)
