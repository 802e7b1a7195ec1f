"""Every known shape of request smuggling, as bytes on an HTTP/1.1 connection.

Each is one request, or what looks like one, followed by a request to `/smuggled` wherever an
implementation that reads it in the wrong way would find it.
"""

from __future__ import annotations

from typing import NamedTuple

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Shape(NamedTuple):
    data: bytes
    status: int
    """Of the answer to the first request: 200 if it has one reading, which the origin gets."""
    content: bytes = b""
    """Of that request, as the origin gets it."""
    then: bool = False
    """What follows is by every reading another request: it may be answered too."""


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"POST /first HTTP/1.1", b"Host: localhost", *lines, b"", b"")) + body


def _get(*lines: bytes, line: bytes = b"GET /first HTTP/1.1") -> bytes:
    return b"\r\n".join((line, *lines, b"", b""))


_CHUNKED = b"Transfer-Encoding: chunked"
_LAST = b"0\r\n\r\n"
_HOST = b"Host: localhost"
_EMBEDDED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)


def _coding(line: bytes, status: int = 400) -> Shape:
    return Shape(_post(line, body=_LAST + SMUGGLED), status)


def _length(value: bytes) -> Shape:
    return Shape(_post(b"Content-Length: " + value, body=b"hello" + SMUGGLED), 400)


def _chunk(body: bytes) -> Shape:
    return Shape(_post(_CHUNKED, body=body + SMUGGLED), 400)


def _field(line: bytes, status: int = 400) -> Shape:
    return Shape(_get(_HOST, line) + SMUGGLED, status)


SHAPES: dict[str, Shape] = {
    # Two framings at once.
    "CL.TE": Shape(_post(b"Content-Length: 6", _CHUNKED, body=b"0\r\n\r\nG" + SMUGGLED), 400),
    "TE.CL": Shape(_post(_CHUNKED, b"Content-Length: 4", body=_EMBEDDED), 400),
    "TE.CL of the right length": Shape(
        _post(b"Content-Length: 5", _CHUNKED, body=_LAST + SMUGGLED), 400
    ),
    "0.CL": Shape(_get(_HOST, b"Content-Length: 0" , b"Content-Length: 47") + SMUGGLED, 400),
    "CL.0": Shape(
        _get(_HOST, b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED, 200, SMUGGLED
    ),
    "content of a GET": Shape(_get(_HOST, _CHUNKED) + _EMBEDDED, 200, SMUGGLED),
    # Obfuscated Transfer-Encoding.
    "TE with a prefix": _coding(b"Transfer-Encoding: xchunked", 501),
    "TE with a suffix": _coding(b"Transfer-Encoding: chunkedx", 501),
    "TE identity": _coding(b"Transfer-Encoding: identity", 501),
    "TE empty": _coding(b"Transfer-Encoding:", 501),
    "TE in quotes": _coding(b'Transfer-Encoding: "chunked"', 501),
    "TE list, chunked last": _coding(b"Transfer-Encoding: gzip, chunked", 501),
    "TE list, chunked first": _coding(b"Transfer-Encoding: chunked, identity", 501),
    "TE twice in a list": _coding(b"Transfer-Encoding: chunked, chunked", 501),
    "TE with a comma": _coding(b"Transfer-Encoding: chunked,", 501),
    "TE with a parameter": _coding(b"Transfer-Encoding: chunked;q=1", 501),
    "TE twice": _coding(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "TE twice, the other unknown": _coding(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
    "TE with vertical tab": _coding(b"Transfer-Encoding: \x0bchunked"),
    "TE with form feed": _coding(b"Transfer-Encoding: chunked\x0c"),
    "TE with NUL": _coding(b"Transfer-Encoding: chunked\x00"),
    "TE with NBSP": _coding(b"Transfer-Encoding: \xa0chunked", 501),
    "TE with DEL": _coding(b"Transfer-Encoding: chunked\x7f"),
    "TE with space before the colon": _coding(b"Transfer-Encoding : chunked"),
    "TE with tab before the colon": _coding(b"Transfer-Encoding\t: chunked"),
    "TE with space before the name": _coding(b" Transfer-Encoding: chunked"),
    "TE with NUL in the name": _coding(b"Transfer\x00-Encoding: chunked"),
    "TE with an underscore": _coding(b"Transfer_Encoding: chunked"),
    "TE folded": _coding(b"Transfer-Encoding:\r\n chunked"),
    "TE folded, with tab": _coding(b"Transfer-Encoding:\r\n\tchunked"),
    "TE after a folded line": _coding(b"X: a\r\n b\r\nTransfer-Encoding: chunked"),
    "TE after a bare LF": _coding(b"X: a\nTransfer-Encoding: chunked"),
    "TE after a bare CR": _coding(b"X: a\rTransfer-Encoding: chunked"),
    "TE followed by a bare CR": _coding(b"Transfer-Encoding: chunked\r"),
    "TE with any case": Shape(
        _post(b"tRANSFER-eNCODING:\tChUnKeD \t", body=b"5\r\nhello\r\n0\r\n\r\n"), 200, b"hello"
    ),
    "TE in HTTP/1.0": Shape(
        _get(_HOST, _CHUNKED, line=b"POST /first HTTP/1.0") + _LAST + SMUGGLED, 400
    ),
    "TE removed by Connection": Shape(
        _post(_CHUNKED, b"Connection: Transfer-Encoding", body=_EMBEDDED), 200, SMUGGLED
    ),
    # Content-Length.
    "length twice, different": _length(b"5\r\nContent-Length: 52"),
    "length twice, equal": _length(b"5\r\nContent-Length: 5"),
    "length as a list": _length(b"5, 5"),
    "length with plus": _length(b"+5"),
    "length with minus": _length(b"-5"),
    "length in hexadecimal": _length(b"0x5"),
    "length with underscore": _length(b"0_5"),
    "length with a fraction": _length(b"5.0"),
    "length with an exponent": _length(b"5e0"),
    "length empty": _length(b""),
    "length with a space": _length(b"5 0"),
    "length beyond any body": _length(b"99999999999999999999"),
    "length of other digits": _length("٥".encode()),
    "length with vertical tab": _length(b"\x0b5"),
    "length with a trailing comma": _length(b"5,"),
    "length in quotes": _length(b'"5"'),
    "length with an underscore in its name": Shape(
        _post(b"Content_Length: 5", body=b"hello" + SMUGGLED), 400
    ),
    "length with space before the colon": Shape(
        _post(b"Content-Length : 5", body=b"hello" + SMUGGLED), 400
    ),
    "length removed by Connection": Shape(
        _post(b"Content-Length: %d" % len(SMUGGLED), b"Connection: content-length", body=SMUGGLED),
        200, SMUGGLED,
    ),
    "length with leading zeros": Shape(
        _post(b"Content-Length: 0005", body=b"hello" + SMUGGLED), 200, b"hello", then=True
    ),
    # Chunks.
    "chunk size with minus": _chunk(b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with plus": _chunk(b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with 0x": _chunk(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with underscore": _chunk(b"0_5\r\nhello\r\n0\r\n\r\n"),
    "chunk size beyond 64 bits": _chunk(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunk size of endless zeros": _chunk(b"0" * 300 + b"5\r\nhello\r\n0\r\n\r\n"),
    "chunk size empty": _chunk(b"\r\nhello\r\n0\r\n\r\n"),
    "chunk size with space before": _chunk(b" 5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with space after": _chunk(b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunk size with tab after": _chunk(b"5\t\r\nhello\r\n0\r\n\r\n"),
    "chunk size with other text": _chunk(b"5 hello\r\nhello\r\n0\r\n\r\n"),
    "chunk line with bare LF": _chunk(b"5\nhello\r\n0\r\n\r\n"),
    "chunk line with bare CR": _chunk(b"5\rhello\r\n0\r\n\r\n"),
    "chunk without CRLF after it": _chunk(b"5\r\nhello0\r\n\r\n"),
    "chunk with LF after it": _chunk(b"5\r\nhello\n0\r\n\r\n"),
    "chunk with two other bytes after it": _chunk(b"5\r\nhelloXX0\r\n\r\n"),
    "chunk longer than its size": _chunk(b"3\r\nhello\r\n0\r\n\r\n"),
    "chunk extension with bare LF": _chunk(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "chunk extension with bare CR": _chunk(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "chunk extension with NUL": _chunk(b"5;a\x00\r\nhello\r\n0\r\n\r\n"),
    "chunk extension without end": _chunk(b"5;" + b"a" * 9000 + b"\r\nhello\r\n0\r\n\r\n"),
    "chunk extension": Shape(
        _post(_CHUNKED, body=b'5;a="b;c";d\r\nhello\r\n0;x\r\n\r\n' + SMUGGLED),
        200, b"hello", then=True,
    ),
    "last chunk with bare LF": _chunk(b"5\r\nhello\r\n0\n\n"),
    "last chunk with text": _chunk(b"5\r\nhello\r\n0\r\nX"),
    "trailer without colon": _chunk(b"0\r\nhello\r\n\r\n"),
    "trailer with space before the colon": _chunk(b"0\r\nx : y\r\n\r\n"),
    "trailer that is folded": _chunk(b"0\r\nx: y\r\n z\r\n\r\n"),
    "trailer with bare LF": _chunk(b"0\r\nx: y\nz: 1\r\n\r\n"),
    "trailer with bare CR": _chunk(b"0\r\nx: y\rz: 1\r\n\r\n"),
    "trailer with NUL": _chunk(b"0\r\nx: \x00\r\n\r\n"),
    "trailer of framing": _chunk(b"0\r\nContent-Length: 47\r\n\r\n"),
    "trailer of coding": _chunk(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "trailer of routing": _chunk(b"0\r\nHost: b.test\r\n\r\n"),
    "trailer of a pseudo-header": _chunk(b"0\r\n:path: /smuggled\r\n\r\n"),
    "trailers without end": Shape(
        _post(_CHUNKED, body=b"0\r\n" + b"x: yyyyyyyyyyyyyyyyyyy\r\n" * 4000 + SMUGGLED), 431
    ),
    # Lines and fields.
    "head with bare LF": Shape(
        b"GET /first HTTP/1.1\nHost: localhost\n\n" + SMUGGLED, 400
    ),
    "request line with bare LF": Shape(
        b"GET /first HTTP/1.1\nHost: localhost\r\n\r\n" + SMUGGLED, 400
    ),
    "request line with bare CR": Shape(
        b"GET /first HTTP/1.1\rHost: localhost\r\n\r\n" + SMUGGLED, 400
    ),
    "head that ends with LF CR LF": Shape(
        b"GET /first HTTP/1.1\r\nHost: localhost\n\r\n" + SMUGGLED, 400
    ),
    "bare CR in a value": _field(b"X: a\rb"),
    "bare LF in a value": _field(b"X: a\nb"),
    "folded line": _field(b"X: a\r\n b"),
    "folded line with tab": _field(b"X: a\r\n\tb"),
    "folded first line": Shape(_get(b" X: y", _HOST) + SMUGGLED, 400),
    "space before the colon": _field(b"X : a"),
    "line without colon": _field(b"X"),
    "line with an empty name": _field(b": a"),
    "pseudo-header field": _field(b":path: /smuggled"),
    "NUL in a value": _field(b"X: a\x00b"),
    "NUL in a name": _field(b"X\x00Y: a"),
    "NUL in a connection field": _field(b"Connection: close\x00"),
    "control character in a value": _field(b"X: \x01"),
    "non-ASCII name": _field(b"X\xe9: a"),
    "non-ASCII value": _field(b"X: caf\xc3\xa9", 200)._replace(then=True),
    "too many fields": Shape(_get(_HOST, *(b"X-%d: y" % n for n in range(200))) + SMUGGLED, 431),
    "field too long": Shape(_get(_HOST, b"X: " + b"y" * 70_000) + SMUGGLED, 431),
    "line too long": Shape(b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\n" + SMUGGLED, 414),
    "path too long": Shape(
        _get(_HOST, b"Connection: close", line=b"GET /%b HTTP/1.1" % (b"y" * 20_000)), 414
    ),
    # The request line.
    "HTTP/0.9": Shape(b"GET /first\r\n" + SMUGGLED, 400),
    "HTTP/0.9 with a version": Shape(_get(_HOST, line=b"GET /first HTTP/0.9") + SMUGGLED, 505),
    "HTTP/1.2": Shape(_get(_HOST, line=b"GET /first HTTP/1.2") + SMUGGLED, 505),
    "HTTP/2 preface": Shape(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, 505),
    "HTTP/1.10": Shape(_get(_HOST, line=b"GET /first HTTP/1.10") + SMUGGLED, 400),
    "HTTP/01.1": Shape(_get(_HOST, line=b"GET /first HTTP/01.1") + SMUGGLED, 400),
    "http/1.1 in lower case": Shape(_get(_HOST, line=b"GET /first http/1.1") + SMUGGLED, 400),
    "no version": Shape(_get(_HOST, line=b"GET /first ") + SMUGGLED, 400),
    "two spaces": Shape(_get(_HOST, line=b"GET  /first HTTP/1.1") + SMUGGLED, 400),
    "tab between": Shape(_get(_HOST, line=b"GET\t/first\tHTTP/1.1") + SMUGGLED, 400),
    "space in the target": Shape(_get(_HOST, line=b"GET /first x HTTP/1.1") + SMUGGLED, 400),
    "space before the method": Shape(_get(_HOST, line=b" GET /first HTTP/1.1") + SMUGGLED, 400),
    "method that is no token": Shape(_get(_HOST, line=b"G(T /first HTTP/1.1") + SMUGGLED, 400),
    "fragment": Shape(_get(_HOST, line=b"GET /first#x HTTP/1.1") + SMUGGLED, 400),
    "NUL in the target": Shape(_get(_HOST, line=b"GET /first\x00 HTTP/1.1") + SMUGGLED, 400),
    "non-ASCII target": Shape(_get(_HOST, line=b"GET /first\xff HTTP/1.1") + SMUGGLED, 400),
    "target without a slash": Shape(_get(_HOST, line=b"GET first HTTP/1.1") + SMUGGLED, 400),
    "target with ambiguous dots": Shape(
        _get(_HOST, line=b"GET /first/..%2fadmin HTTP/1.1") + SMUGGLED, 400
    ),
    "asterisk for GET": Shape(_get(_HOST, line=b"GET * HTTP/1.1") + SMUGGLED, 400),
    "CONNECT": Shape(_get(_HOST, line=b"CONNECT localhost:443 HTTP/1.1") + SMUGGLED, 501),
    "empty lines before": Shape(b"\r\n\r\n" + _get(_HOST) + SMUGGLED, 400),
    # The host.
    "no Host": Shape(_get() + SMUGGLED, 400),
    "empty Host": Shape(_get(b"Host:") + SMUGGLED, 400),
    "Host twice": Shape(_get(_HOST, b"Host: b.test") + SMUGGLED, 400),
    "Host twice, equal": Shape(_get(_HOST, _HOST) + SMUGGLED, 400),
    "Host with a path": Shape(_get(b"Host: localhost/x") + SMUGGLED, 400),
    "Host with userinfo": Shape(_get(b"Host: u@localhost") + SMUGGLED, 400),
    "Host with a space": Shape(_get(b"Host: localhost b") + SMUGGLED, 400),
    "Host as a list": Shape(_get(b"Host: localhost, b.test") + SMUGGLED, 400),
    "Host with a port that is no number": Shape(_get(b"Host: localhost:x") + SMUGGLED, 400),
    "Host with space before the colon": Shape(_get(b"Host : localhost") + SMUGGLED, 400),
    "absolute form with userinfo": Shape(
        _get(_HOST, line=b"GET https://u@localhost/first HTTP/1.1") + SMUGGLED, 400
    ),
    "absolute form of another scheme": Shape(
        _get(_HOST, line=b"GET ftp://localhost/first HTTP/1.1") + SMUGGLED, 421
    ),
    "absolute form without authority": Shape(
        _get(_HOST, line=b"GET https:///first HTTP/1.1") + SMUGGLED, 400
    ),
    "absolute form without Host": Shape(
        _get(line=b"GET https://localhost/first HTTP/1.1") + SMUGGLED, 400
    ),
    "absolute form, another Host": Shape(
        _get(b"Host: b.test", line=b"GET https://localhost/first HTTP/1.1") + SMUGGLED,
        200, then=True,
    ),
    # Upgrades and expectations.
    "upgrade to h2c": Shape(
        _get(
            _HOST, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        ) + SMUGGLED,
        200, then=True,
    ),
    "upgrade to something unknown": Shape(
        _get(_HOST, b"Connection: Upgrade", b"Upgrade: foo/2") + SMUGGLED, 200, then=True
    ),
    "expectation in disguise": Shape(
        _post(b"Content-Length: 47", b"Expect: y 100-continue", body=SMUGGLED), 417
    ),
    "expectation twice": Shape(
        _post(
            b"Content-Length: 5", b"Expect: 100-continue", b"Expect: 100-continue", body=b"hello"
        ),
        400,
    ),
}  # fmt: skip
