"""Request fields that only the edge may write: one table for all HTTP versions.

Origins can trust these fields because the edge drops every copy sent by a client. CGI and its
successors (WSGI, PHP, Rack) present `x_forwarded_for` and `x-forwarded-for` to applications under
one name, and some do the same with any other punctuation. Names that differ from a reserved one
only by punctuation are therefore dropped as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quicedge.config.limits import FILTER_NAMES_REMEMBERED, NAMES_REMEMBERED
from quicedge.http.message import Field, Fields
from quicedge.http.remembered import RememberedNames

HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
"""Hop-by-hop fields, which are not forwarded (RFC 9110 section 7.6.1). Trailer is not among them
(section 6.6.2)."""

SET_BY_EDGE = frozenset(
    (
        b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"early-data",
        b"client-cert", b"client-cert-chain",
    )
)  # fmt: skip
"""Fields in which the edge describes the client and its request."""

_PREFIXES = (b"x-forwarded", b"x-ssl-client", b"ssl-client", b"x-client-cert")
"""Covers X-Forwarded-Port, -Prefix, -Server, -Ssl, -By, -Scheme, X-Forwarded and any others that
frameworks trust as set by a proxy; and what proxies say of clients' certificates:
X-SSL-Client-Verify, -Cert, -DN, X-Client-Cert."""

CLAIMED_BY_PROXIES = frozenset(
    (
        b"cf-connecting-ip", b"client-ip", b"fastly-client-ip", b"front-end-https", b"proxy",
        b"true-client-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-original-forwarded-for",
        b"x-original-host", b"x-original-url", b"x-real-ip", b"x-rewrite-url", b"x-scheme",
        b"x-url-scheme",
    )
)  # fmt: skip
"""Fields that other proxies write and applications trust: the client's address, the scheme, the
target in place of the request line (X-Original-URL). `Proxy` becomes HTTP_PROXY under CGI
(CVE-2016-5385)."""

_MARKS = b"!#$%&'*+.^_`|~"
_HYPHENATE = bytes.maketrans(_MARKS, b"-" * len(_MARKS))


def hyphenated(name: bytes) -> bytes:
    """A canonical form that is equal for field names that CGI does not distinguish."""
    return name.translate(_HYPHENATE)


class _Names:
    """Names of fields, and prefixes of such names.

    Where origins do not distinguish them (`tell_underscores`), names that differ only by
    punctuation are among them too.
    """

    __slots__ = ("_names", "_prefixes", "_tell_underscores")

    def __init__(
        self, names: Iterable[bytes], prefixes: Iterable[bytes], *, tell_underscores: bool
    ) -> None:
        if not tell_underscores:
            names, prefixes = map(hyphenated, names), map(hyphenated, prefixes)
        self._names = frozenset(names)
        self._prefixes = tuple(prefixes)
        self._tell_underscores = tell_underscores

    def __bool__(self) -> bool:
        return bool(self._names or self._prefixes)

    def __contains__(self, name: bytes) -> bool:
        """Whether a field of this name is, or may be taken for, one of them."""
        known = name if self._tell_underscores else hyphenated(name)
        return known in self._names or known.startswith(self._prefixes)


class Written:
    """Names of request fields that a filter sets or removes, with all that origins may take for
    them: beside `x-user`, a client's `x_user` would reach a WSGI application under the same name.
    """

    __slots__ = ("_kept", "_names")

    def __init__(
        self,
        names: Iterable[bytes],
        prefixes: Iterable[bytes] = (),
        *,
        tell_underscores: bool = False,
    ) -> None:
        self._names = _Names(names, prefixes, tell_underscores=tell_underscores)
        self._kept = RememberedNames(FILTER_NAMES_REMEMBERED)

    def __bool__(self) -> bool:
        return bool(self._names)

    def __contains__(self, name: bytes) -> bool:
        """Whether a field of this name is, or may be taken for, one of them."""
        if name in self._names:
            return True
        self._kept.remember(name)
        return False

    def dropped_from(self, fields: Sequence[Field]) -> Fields:
        """The fields without those of these names."""
        kept = self._kept
        return [line for line in fields if line[0] in kept or line[0] not in self]


_NOT_IN_TRAILERS = frozenset((b"cookie", b"via"))
"""Fields that, in addition, matter to origins that merge trailers into the head."""

_RESERVED = HOP_BY_HOP | SET_BY_EDGE | CLAIMED_BY_PROXIES

CHANGED_BY_EDGE = frozenset((b"max-forwards", b"te", b"via"))
"""Fields that origins get with another value."""

ORDINARY = frozenset(
    (
        b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control",
        b"content-type", b"cookie", b"if-modified-since", b"if-none-match", b"origin", b"pragma",
        b"priority", b"range", b"referer", b"sec-ch-ua", b"sec-ch-ua-mobile",
        b"sec-ch-ua-platform", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site",
        b"sec-fetch-user", b"upgrade-insecure-requests", b"user-agent",
    )
)  # fmt: skip
"""The most frequent field names, none of them reserved: a fast path of one lookup."""


class Reserved:
    """The reserved fields, including those that a configuration adds."""

    __slots__ = ("_names", "further", "passed", "tell_underscores")

    def __init__(
        self, further: frozenset[bytes] = frozenset(), *, tell_underscores: bool = False
    ) -> None:
        self.further = further
        """Additional names that the edge writes."""
        self.tell_underscores = tell_underscores
        """Origins distinguish `_` from `-`, so `x_forwarded_for` is an ordinary name."""
        self._names = _Names(_RESERVED | further, _PREFIXES, tell_underscores=tell_underscores)
        self.passed = RememberedNames(
            NAMES_REMEMBERED, (name for name in ORDINARY if name not in self._names)
        )
        """Names of fields that origins get as they are: the ordinary ones, and the last ones that
        were asked for and are not reserved; to be read only."""

    def __contains__(self, name: bytes) -> bool:
        """Whether a client's field of this name must be dropped."""
        if name in self.passed:
            return False
        if name in self._names:
            return True
        if name not in CHANGED_BY_EDGE:
            self.passed.remember(name)
        return False

    def with_further(self, names: frozenset[bytes]) -> Reserved:
        """The same and these names."""
        if not names:
            return self
        return Reserved(self.further | names, tell_underscores=self.tell_underscores)

    def pass_trailers(self, trailers: Sequence[Field]) -> Fields:
        """Request trailers without fields that origins might mistake for header fields."""
        return [
            line for line in trailers if line[0] not in _NOT_IN_TRAILERS and line[0] not in self
        ]
