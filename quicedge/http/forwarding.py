"""Which request fields the edge alone writes, refuses or drops: one table for all HTTP versions.

Origins believe these fields because no client's copy gets past the edge. CGI and what follows its
manner (WSGI, PHP, Rack) show `x_forwarded_for` and `x-forwarded-for` to an application under one
name, and some do the same to every other mark; so names that differ from one of the table only by
such marks are dropped as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quicedge.http.message import Field, Fields

HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
"""RFC 9110 section 7.6.1: these concern one connection and are not forwarded. Trailer is not among
them (section 6.6.2)."""

SET_BY_EDGE = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"early-data")
)
"""Who asks, and how, told by the edge."""

_FORWARDING_PREFIX = b"x-forwarded"
"""X-Forwarded-Port, -Prefix, -Server, -Ssl, -By, -Scheme, X-Forwarded and whatever else
frameworks take for the word of a proxy."""

CLAIMED_BY_PROXIES = frozenset(
    (
        b"cf-connecting-ip", b"client-ip", b"fastly-client-ip", b"front-end-https", b"proxy",
        b"true-client-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-original-forwarded-for",
        b"x-original-host", b"x-original-url", b"x-real-ip", b"x-rewrite-url", b"x-scheme",
        b"x-url-scheme",
    )
)  # fmt: skip
"""What other proxies write and applications believe: the client's address, the scheme, the target
in place of the request line (X-Original-URL). `Proxy` becomes HTTP_PROXY under CGI
(CVE-2016-5385)."""

_MARKS = b"!#$%&'*+.^_`|~"
_HYPHENATE = bytes.maketrans(_MARKS, b"-" * len(_MARKS))


def hyphenated(name: bytes) -> bytes:
    """The name that a field shares with others under CGI."""
    return name.translate(_HYPHENATE)


_NOT_IN_TRAILERS = frozenset((b"cookie", b"via"))
"""Beside the above: fields that mean something to whoever merges trailers into the head."""

_RESERVED = HOP_BY_HOP | SET_BY_EDGE | CLAIMED_BY_PROXIES

ORDINARY = frozenset(
    (
        b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control",
        b"content-type", b"cookie", b"if-modified-since", b"if-none-match", b"origin", b"pragma",
        b"priority", b"range", b"referer", b"sec-ch-ua", b"sec-ch-ua-mobile",
        b"sec-ch-ua-platform", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site",
        b"sec-fetch-user", b"upgrade-insecure-requests", b"user-agent",
    )
)  # fmt: skip
"""Most fields of most requests, none of them reserved: one look-up settles them."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """The table, with what a configuration adds to it."""

    further: frozenset[bytes] = frozenset()
    """Names that the edge writes besides."""
    tell_underscores: bool = False
    """Whether `_` (or another mark) and `-` differ for origins: `x_forwarded_for` is any name."""

    def __contains__(self, name: bytes) -> bool:
        """Whether a client's field of this name must not reach origins."""
        if name in ORDINARY:
            return False
        if not self.tell_underscores:
            name = hyphenated(name)
        return name in _RESERVED or name in self.further or name.startswith(_FORWARDING_PREFIX)

    def pass_trailers(self, trailers: Sequence[Field]) -> Fields:
        """A request's trailers without what origins must not take for fields of its head."""
        return [
            field for field in trailers if field[0] not in _NOT_IN_TRAILERS and field[0] not in self
        ]
