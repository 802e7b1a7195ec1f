"""What a client asks next when a response sends it elsewhere (RFC 9110 section 15.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from quicedge.cli.url import Target, redirected
from quicedge.http.message import Field, Fields

REDIRECTS = frozenset((301, 302, 303, 307, 308))
_FOR_ONE_HOST = frozenset((b"authorization", b"cookie"))
"""Fields meant for the host that was named, not for another."""
_OF_CONTENT = frozenset((b"content-length", b"content-type", b"content-encoding"))


@dataclass(frozen=True)
class Request:
    """A request to be sent."""

    target: Target
    method: str = "GET"
    fields: Fields = field(default_factory=list)
    body: bytes = b""

    @property
    def authority(self) -> str:
        """`:authority`: what `-H Host:` says, as curl has it, else the URL's."""
        for name, value in self.fields:
            if name == b"host":
                return value.decode("latin-1")
        return self.target.authority

    @property
    def sent_fields(self) -> Fields:
        """Fields as they are sent: `host` is `:authority`, userinfo is `authorization`."""
        fields = [(name, value) for name, value in self.fields if name != b"host"]
        credentials = self.target.credentials
        if credentials is not None and not any(name == b"authorization" for name, _ in fields):
            fields.append((b"authorization", credentials))
        return fields


def location_of(status: int, fields: Sequence[Field]) -> bytes | None:
    """Where a response redirects to; None when it does not."""
    if status not in REDIRECTS:
        return None
    return next((value for name, value in fields if name == b"location"), None)


def next_request(request: Request, status: int, location: bytes) -> Request:
    """The request that follows a redirect; raises UrlError where it leads to no https URL."""
    target = redirected(request.target, location)
    method, body, fields = request.method, request.body, request.fields
    # 301 and 302 turn POST into GET by long custom, 303 all but HEAD.
    if (status in (301, 302) and method == "POST") or (status == 303 and method != "HEAD"):
        method, body = "GET", b""
        fields = [item for item in fields if item[0] not in _OF_CONTENT]
    # What -H Host: named was the first host.
    fields = [item for item in fields if item[0] != b"host"]
    if target.is_same_origin(request.target):
        if target.credentials is None:
            target = replace(target, credentials=request.target.credentials)
    else:
        fields = [item for item in fields if item[0] not in _FOR_ONE_HOST]
    return Request(target, method, fields, body)
