"""What an exchange consists of, and what both of its ends must see, whatever version they speak."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum, auto

from quicedge.http.message import Fields

PIECE = bytes(range(256)) * 256
"""64 KB."""


class OriginFault(Enum):
    """What the origin does wrong."""

    NONE = auto()
    CLOSES_BEFORE_THE_HEAD = auto()
    DIES_IN_THE_BODY = auto()
    SENDS_A_MALFORMED_HEAD = auto()
    RESETS_AFTER_AN_EARLY_RESPONSE = auto()
    """Answers before the request is complete, and reads no more of it."""


class ClientFault(Enum):
    """What the client does before the exchange is over."""

    NONE = auto()
    LEAVES_DURING_THE_RESPONSE = auto()
    LEAVES_DURING_THE_REQUEST = auto()
    CUTS_ITS_REQUEST_SHORT = auto()
    """Ends a request of declared length before its last piece, while there is no response."""
    GIVES_UP_ITS_UPLOAD = auto()
    """Ends a request of declared length before its last piece, once the response has begun."""
    RESETS_ITS_UPLOAD = auto()
    """The same by a reset, where a request can be reset alone."""

    @property
    def wants_the_response(self) -> bool:
        return self in (
            ClientFault.NONE, ClientFault.GIVES_UP_ITS_UPLOAD, ClientFault.RESETS_ITS_UPLOAD
        )  # fmt: skip

    @property
    def ends_early(self) -> bool:
        """Whether the last piece of the request is not sent, although it was declared."""
        return self is ClientFault.CUTS_ITS_REQUEST_SHORT or self.gives_up

    @property
    def gives_up(self) -> bool:
        """Whether it ends its request because of the response that has begun."""
        return self.wants_the_response and self is not ClientFault.NONE


@dataclass(frozen=True)
class Case:
    """One exchange; the defaults are a GET that is answered with `hello`."""

    name: str
    method: bytes = b"GET"
    fields: Fields = field(default_factory=list)
    body: tuple[bytes, ...] | None = None
    """Pieces of the request body; None: it has none."""
    declared: bool = True
    """The request carries Content-Length."""
    trailers: Fields = field(default_factory=list)
    expects_continue: bool = False
    interim: tuple[int, ...] = ()
    """Interim responses of the origin."""
    status: int = 200
    response_fields: Fields = field(default_factory=list)
    response: tuple[bytes, ...] = (b"hello",)
    response_declared: bool = True
    response_trailers: Fields = field(default_factory=list)
    origin: OriginFault = OriginFault.NONE
    client: ClientFault = ClientFault.NONE
    answered: int | None = None
    """Status that the client gets; default: the origin's."""
    reaches_the_origin: bool = True

    @property
    def request_body(self) -> bytes:
        return b"".join(self.body or ())

    @property
    def has_content(self) -> bool:
        """Whether the response has content (RFC 9110 sections 9.3.2, 15.3.5 and 15.4.5)."""
        return self.method != b"HEAD" and self.status not in (204, 304)

    @property
    def is_answered_early(self) -> bool:
        """Whether the origin answers before the request is complete."""
        return self.client.gives_up or self.origin is OriginFault.RESETS_AFTER_AN_EARLY_RESPONSE

    @property
    def sent(self) -> tuple[bytes, ...]:
        """The pieces of the request body that the client sends."""
        pieces = self.body or ()
        return pieces[:-1] if self.client.ends_early else pieces


@dataclass
class Seen:
    """A request as it arrived at the origin."""

    method: bytes = b""
    target: bytes = b""
    fields: Fields = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    complete: bool = False
    aborted: bool = False
    """The edge reset the stream or closed the connection before the exchange was over."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


class Arrivals:
    """The requests that have arrived at an origin."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.first = asyncio.Event()
        self.given_up = asyncio.Event()
        """The client has ended its request because of the response."""

    def add(self, request: Seen) -> None:
        self.requests.append(request)
        self.first.set()


@dataclass
class Got:
    """A response as it arrived at the client."""

    interim: list[int] = field(default_factory=list)
    status: int | None = None
    fields: Fields = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    complete: bool = False
    """The end of the response was marked by its protocol, rather than lost."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


TE = [(b"te", b"trailers")]

CASES = (
    *(Case(f"method {m.decode()}", m) for m in (b"GET", b"HEAD", b"OPTIONS", b"PROPFIND")),
    *(
        Case(f"method {m.decode()} with a body", m, body=(b"content",))
        for m in (b"POST", b"PUT", b"PATCH", b"DELETE")
    ),
    Case("an empty body", b"POST", body=()),
    Case("a body of unknown length", b"POST", body=(b"one", b"two"), declared=False),
    Case("a large body", b"POST", body=(PIECE,) * 8),
    Case("a large body of unknown length", b"PUT", body=(PIECE,) * 8, declared=False),
    Case("no response content", response=()),
    Case("a response of unknown length", response=(b"one", b"two"), response_declared=False),
    Case("a large response", response=(PIECE,) * 16),
    Case("a large response of unknown length", response=(PIECE,) * 16, response_declared=False),
    Case("large bodies both ways", b"POST", body=(PIECE,) * 8, response=(PIECE,) * 8),
    Case(
        "request trailers", b"POST", body=(b"content",), declared=False, trailers=[(b"x-sum", b"1")]
    ),
    Case(
        "response trailers",
        fields=TE,
        response_declared=False,
        response_trailers=[(b"x-sum", b"1"), (b"x-more", b"2")],
    ),
    Case("early hints", interim=(103,)),
    Case("several interim responses", interim=(103, 103)),
    Case("an expectation that is met", b"POST", body=(b"content",), expects_continue=True),
    *(
        Case(f"status {s}", status=s)
        for s in (200, 201, 204, 206, 301, 304, 400, 404, 418, 500, 503)
    ),
    Case("HEAD of what does not exist", b"HEAD", status=404),
    Case("fields that repeat", response_fields=[(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]),
    Case("cookies in several fields", fields=[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
    Case("sixty fields", fields=[(b"x-field-%d" % n, b"value" * 10) for n in range(60)]),
    Case(
        "a response before the request is complete",
        b"POST",
        body=(PIECE,) * 12,
        status=403,
        origin=OriginFault.RESETS_AFTER_AN_EARLY_RESPONSE,
    ),
    Case("an origin that closes", b"POST", body=(b"x",), answered=502,
         origin=OriginFault.CLOSES_BEFORE_THE_HEAD),
    Case("an origin that dies in the body", response=(PIECE, PIECE),
         origin=OriginFault.DIES_IN_THE_BODY),
    Case("an origin that dies in a body of unknown length", response=(PIECE, PIECE),
         response_declared=False, origin=OriginFault.DIES_IN_THE_BODY),
    Case("a malformed response head", answered=502, origin=OriginFault.SENDS_A_MALFORMED_HEAD),
    Case("a client that leaves during the response", response=(PIECE,) * 400,
         client=ClientFault.LEAVES_DURING_THE_RESPONSE),
    Case("a client that leaves during the request", b"POST", body=(PIECE, PIECE), declared=False,
         client=ClientFault.LEAVES_DURING_THE_REQUEST),
    Case("a request cut short", b"POST", body=(PIECE,) * 3,
         client=ClientFault.CUTS_ITS_REQUEST_SHORT),
    Case("an upload given up for its response", b"POST", body=(PIECE,) * 3, status=403,
         response=(PIECE,) * 16, client=ClientFault.GIVES_UP_ITS_UPLOAD),
    Case("an upload given up for a response of unknown length", b"POST", body=(PIECE,) * 3,
         response=(PIECE,) * 16, response_declared=False, client=ClientFault.GIVES_UP_ITS_UPLOAD),
    Case("an upload reset for its response", b"POST", body=(PIECE,) * 3, status=403,
         response=(PIECE,) * 16, client=ClientFault.RESETS_ITS_UPLOAD),
    Case("a body beyond the limit", b"POST", body=(PIECE,) * 20, answered=413,
         reaches_the_origin=False, fields=[(b"x-limit", b"declared")]),
    Case("a head beyond the limit", fields=[(b"x-large", b"a" * 40_000)] * 2, answered=431,
         reaches_the_origin=False),
)  # fmt: skip
