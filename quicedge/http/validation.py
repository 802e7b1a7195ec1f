"""Validation of messages before the edge acts on them, for all HTTP versions.

Request smuggling exploits the translation between versions, so validation relies neither on the
codec that read the message nor on the one that will write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from quicedge.config import limits as defaults
from quicedge.http.forwarding import hyphenated
from quicedge.http.grammar import (
    AUTHORITY,
    CONTENT_LENGTH,
    FIELD_NAME,
    FIELD_VALUE,
    PATH,
    SCHEME,
    TOKEN,
)
from quicedge.http.message import (
    FIELD_OVERHEAD,
    Field,
    Fields,
    Request,
    Response,
    count_lines,
    section_size,
)
from quicedge.http.remembered import RememberedNames
from quicedge.http.target import is_ambiguous

CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""RFC 9114 section 4.2: any message containing connection-specific fields MUST be treated as
malformed."""

_FRAMING = frozenset((b"content-length", b"transfer-encoding"))

FORBIDDEN_TRAILERS = frozenset(
    (
        b"authorization", b"content-encoding", b"content-length", b"content-range",
        b"content-type", b"host", b"max-forwards", b"proxy-authorization", b"set-cookie", b"te",
        b"trailer", b"transfer-encoding",
    )
)  # fmt: skip
"""Fields for framing, routing or authentication: not in trailers (RFC 9110 section 6.5.1)."""

_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))

_KNOWN_METHODS = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT")
)

# The most frequent names: a set lookup is faster than matching the grammar.
_KNOWN_NAMES = frozenset(
    (
        b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control",
        b"content-length", b"content-type", b"cookie", b"dnt", b"early-data", b"etag", b"expect",
        b"forwarded", b"grpc-timeout", b"host", b"if-match", b"if-modified-since",
        b"if-none-match", b"if-range", b"origin", b"pragma", b"priority", b"range", b"referer",
        b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform", b"sec-fetch-dest",
        b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user", b"te", b"traceparent",
        b"tracestate", b"upgrade-insecure-requests", b"user-agent", b"x-forwarded-for",
        b"x-forwarded-host", b"x-forwarded-proto",
    )
)  # fmt: skip


_SPECIAL_NAMES = frozenset((b"content-length", b"cookie", b"expect", b"host", b"te"))
"""Known names whose values matter here."""

_plain_names = RememberedNames(defaults.NAMES_REMEMBERED, _KNOWN_NAMES - _SPECIAL_NAMES)
"""Names that need no check and mean nothing special: those known, and the last ones that have
passed it."""

_VALUE_OCTETS = bytes((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))
"""Octets of field values."""

_KNOWN_RESPONSE_NAMES = frozenset(
    (
        b"accept-ranges", b"access-control-allow-origin", b"age", b"alt-svc", b"cache-control",
        b"connection", b"content-encoding", b"content-length", b"content-security-policy",
        b"content-type", b"date", b"etag", b"expires", b"keep-alive", b"last-modified", b"link",
        b"location", b"referrer-policy", b"server", b"set-cookie", b"strict-transport-security",
        b"transfer-encoding", b"vary", b"via", b"x-content-type-options", b"x-frame-options",
        b"x-powered-by", b"x-request-id",
    )
)  # fmt: skip


class MessageError(ValueError):
    """A malformed message. `status_hint` is the status for the client, if a response is sent."""

    def __init__(self, reason: str, status_hint: int = 400) -> None:
        super().__init__(reason)
        self.status_hint = status_hint


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Bounds of a field section."""

    max_size: int = defaults.MAX_FIELD_SECTION_SIZE
    """Bytes of names and values, plus `FIELD_OVERHEAD` per line."""
    max_fields: int = defaults.MAX_FIELDS
    allow_connect: bool = False
    extended_connect: bool = False
    """SETTINGS_ENABLE_CONNECT_PROTOCOL was announced (RFC 8441 and RFC 9220, section 3)."""


def validate_request(
    section: Sequence[Field], limits: MessageLimits, *, is_measured: bool = False
) -> Request:
    """Build a request from its field section (RFC 9114 section 4.3.1); raises MessageError.

    `is_measured`: the codec has enforced the bounds of a field section already.
    """
    pseudo: dict[bytes, bytes] = {}
    for name, value in section:
        if name[:1] != b":":
            break
        if name not in _REQUEST_PSEUDO:
            raise MessageError("unknown pseudo-header field")
        if name in pseudo:
            raise MessageError(f"{_text(name)} appears twice")
        pseudo[name] = value
    lines = section[len(pseudo) :]
    if not _are_values([value for _, value in lines]):
        for name, value in lines:
            _validate_value(name, value)
    fields = [line for line in lines if line[0] in _plain_names]
    host: bytes | None = None
    content_length: int | None = None
    if len(fields) < len(lines):
        fields, host, content_length = _validate_lines(lines)
    if not is_measured and (
        section_size(section) > limits.max_size
        or len(section) > limits.max_fields < count_lines(section)
    ):
        raise MessageError("field section too large", status_hint=431)
    return _request(pseudo, fields, host, content_length, limits)


def _validate_lines(lines: Sequence[Field]) -> tuple[Fields, bytes | None, int | None]:
    """Field lines of a request, some of which mean more than others: those that it keeps, the value
    of Host, and that of Content-Length; raises MessageError."""
    fields: Fields = []
    cookies: list[bytes] = []
    host: bytes | None = None
    content_length: int | None = None
    has_te = False
    for line in lines:
        name, value = line
        if name in _plain_names:
            fields.append(line)
        elif name == b"host":
            if host is not None and host != value:
                raise MessageError("host appears twice")
            host = value
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"content-length":
            content_length = parse_content_length(value, content_length)
        else:
            if name == b"te":
                # RFC 9114 section 4.2: TE MUST NOT contain any value other than "trailers"; two
                # lines are "trailers, trailers".
                if has_te or value.lower() != b"trailers":
                    raise MessageError("te other than trailers")
                has_te = True
            elif name == b"expect":
                # RFC 9110 section 10.1.1: MAY respond with 417 to any other expectation. Servers
                # disagree about obfuscated ones, and hence about where the content ends.
                if value.lower() != b"100-continue":
                    raise MessageError("an expectation other than 100-continue", status_hint=417)
            elif name[:1] == b":":
                # RFC 9114 section 4.3: all pseudo-header fields MUST appear in the header section
                # before regular header fields.
                raise MessageError("pseudo-header field after a regular field")
            else:
                _validate_name(name)
                _plain_names.remember(name)
            fields.append(line)
    if cookies:
        # RFC 9114 section 4.2.1: MUST be concatenated before leaving HTTP/3.
        fields.append((b"cookie", b"; ".join(cookies)))
    return fields, host, content_length


def _request(
    pseudo: dict[bytes, bytes],
    fields: Fields,
    host: bytes | None,
    content_length: int | None,
    limits: MessageLimits,
) -> Request:
    method = pseudo.get(b":method", b"")
    if method not in _KNOWN_METHODS and not TOKEN.fullmatch(method):
        raise MessageError(":method is missing or not a token")
    protocol = pseudo.get(b":protocol")
    if protocol is not None and method != b"CONNECT":
        # RFC 9220 section 3 with RFC 8441 section 4: :protocol belongs to CONNECT.
        raise MessageError(":protocol without CONNECT")
    if protocol is not None and not limits.extended_connect:
        # RFC 9220 section 3: without the setting, :protocol makes a request malformed.
        raise MessageError(":protocol was not announced")
    scheme, path = pseudo.get(b":scheme"), pseudo.get(b":path")
    if method == b"CONNECT":
        _validate_connect(pseudo, content_length)
        if protocol is None and not limits.allow_connect:
            raise MessageError("CONNECT is not served here", status_hint=501)
    elif scheme is None or path is None:
        raise MessageError(":scheme or :path is missing")
    if scheme is None or path is None:
        pass  # CONNECT to a host, which is all that it names
    elif scheme != b"https" and not SCHEME.fullmatch(scheme):
        raise MessageError(":scheme is malformed")
    elif not PATH.fullmatch(path) and not (path == b"*" and method == b"OPTIONS"):
        raise MessageError(":path is malformed")
    elif is_ambiguous(path):
        raise MessageError(":path has dot segments that servers disagree about")
    if protocol is not None:
        protocol = protocol.lower()
        # RFC 8441 section 5: not used in extended CONNECT. Inside the edge it marks clients of
        # HTTP/1.1 (`http.upgrade`).
        fields = [field for field in fields if field[0] != b"sec-websocket-key"]
    authority = _authority(pseudo.get(b":authority"), host)
    return Request(
        method=method,
        scheme=scheme or b"",
        authority=authority,
        path=path or b"",
        fields=fields,
        content_length=content_length,
        protocol=protocol,
    )


def _validate_connect(pseudo: dict[bytes, bytes], content_length: int | None) -> None:
    # RFC 9114 section 4.4: :scheme and :path MUST be omitted; an extended CONNECT (RFC 9220)
    # has them.
    extended = b":protocol" in pseudo
    if (b":scheme" in pseudo) != extended or (b":path" in pseudo) != extended:
        raise MessageError("CONNECT with wrong :scheme or :path")
    if b":authority" not in pseudo:
        raise MessageError("CONNECT without :authority")
    if content_length is not None:
        raise MessageError("content-length on CONNECT")


def _authority(authority: bytes | None, host: bytes | None) -> bytes:
    """RFC 9114 section 4.3.1: :authority or Host is required; both must be equal."""
    if authority is not None and host is not None and authority != host:
        raise MessageError(":authority and host differ")
    value = authority if authority is not None else host
    if not value or not (
        _is_authority(value) if len(value) <= defaults.MAX_AUTHORITY else AUTHORITY.fullmatch(value)
    ):
        raise MessageError("the authority is missing or malformed")
    return value


@lru_cache(maxsize=defaults.AUTHORITIES_REMEMBERED)
def _is_authority(value: bytes) -> bool:
    return AUTHORITY.fullmatch(value) is not None


def _validate_field(name: bytes, value: bytes) -> None:
    if name not in _KNOWN_NAMES:
        _validate_name(name)
    _validate_value(name, value)


def _validate_name(name: bytes) -> None:
    if not FIELD_NAME.fullmatch(name):
        raise MessageError("a field name is not a lower-case token")
    if name in CONNECTION_SPECIFIC:
        raise MessageError(f"connection-specific field {_text(name)}")
    if name not in _FRAMING and hyphenated(name) in _FRAMING:
        # CGI cannot distinguish `content_length` from the framing field; honest clients do not
        # send it.
        raise MessageError(f"framing field {_text(name)}")


def _validate_value(name: bytes, value: bytes) -> None:
    if not FIELD_VALUE.fullmatch(value):
        raise MessageError(f"the value of {_text(name)} is malformed")


def _are_values(values: Sequence[bytes]) -> bool:
    """Whether all of them are field values, checked at once: steps per value would cost more than
    those per octet."""
    text = b"\n".join((b"", *values, b""))
    if b"\t" in text and (b"\n\t" in text or b"\t\n" in text):
        return False
    # What is left are the separators, unless other octets are.
    left = text.translate(None, _VALUE_OCTETS)
    return len(left) == len(values) + 1 == left.count(b"\n") and not (
        b"\n " in text or b" \n" in text
    )


def parse_content_length(value: bytes, known: int | None = None) -> int:
    """Parse a content-length field; `known` is the value of an earlier one. Raises MessageError."""
    if not CONTENT_LENGTH.fullmatch(value):
        raise MessageError("content-length is not a number")
    length = int(value)
    # RFC 9110 section 8.6: identical values may be folded; differing ones MUST be rejected.
    if known is not None and known != length:
        raise MessageError("content-length has two values")
    return length


def validate_trailers(section: Sequence[Field], limits: MessageLimits) -> Fields:
    """Validate a trailer section: no pseudo-header, framing or routing fields."""
    fields: Fields = []
    size = 0
    for name, value in section:
        size += len(name) + len(value) + FIELD_OVERHEAD
        # RFC 9114 section 4.3: pseudo-header fields MUST NOT appear in trailer sections.
        if name[:1] == b":":
            raise MessageError("pseudo-header field in trailers")
        _validate_field(name, value)
        if name in FORBIDDEN_TRAILERS:
            raise MessageError(f"{_text(name)} in trailers")
        fields.append((name, value))
    if size > limits.max_size or len(section) > limits.max_fields:
        raise MessageError("trailer section too large", status_hint=431)
    return fields


def validate_response(section: Sequence[Field]) -> Response:
    """Build a response from an HTTP/2 or HTTP/3 field section; raises MessageError."""
    status = parse_status(section)
    fields = list(section[1:])
    validate_response_fields(fields)
    return Response(status, fields)


def parse_status(section: Sequence[Field]) -> int:
    """Parse the status code at the start of a response's field section; raises MessageError."""
    if not section or section[0][0] != b":status":
        raise MessageError("response without :status first")
    status = section[0][1]
    if len(status) != 3 or not status.isdigit() or status < b"100":
        raise MessageError(":status is not a status code")
    return int(status)


def validate_response_fields(fields: Sequence[Field]) -> None:
    """Validate field names and values from an origin; raises MessageError."""
    unknown = [name for name, _ in fields if name not in _KNOWN_RESPONSE_NAMES]
    values = [value for _, value in fields]
    if (
        all(map(FIELD_NAME.fullmatch, unknown))
        and _are_values(values)
        and max(map(len, chain(unknown, values)), default=0) <= defaults.MAX_QPACK_STRING
    ):
        return
    for name, value in fields:
        if len(name) > defaults.MAX_QPACK_STRING or len(value) > defaults.MAX_QPACK_STRING:
            raise MessageError(f"an origin's field {_text(name[:40])} is too long")
        if name not in _KNOWN_RESPONSE_NAMES and not FIELD_NAME.fullmatch(name):
            raise MessageError("an origin's field name is not a lower-case token")
        if not FIELD_VALUE.fullmatch(value):
            raise MessageError(f"the value of an origin's {_text(name)} is malformed")


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
