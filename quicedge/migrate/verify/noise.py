"""What two edges may do differently without a difference: the whole list, and nothing else is
passed over.

docs/migrate.md has it for people. Values are brought into a common form where they say the same,
and fields that say nothing of the configuration are left out of the comparison.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urljoin, urlsplit

from quicedge.http.target import normal_path
from quicedge.migrate.verify.message import Headers, Outcome, Response, Sample, value_of, values_of

OF_RESPONSES = {
    "date": "the time",
    "server": "each edge has its own name, or passes the origin's",
    "connection": "framing between edge and client",
    "keep-alive": "framing between edge and client",
    "transfer-encoding": "framing; the content is compared",
    "content-length": "follows from the content, which is compared",
    "via": "quicedge names itself, as RFC 9110 wants",
    "alt-svc": "quicedge offers HTTP/3",
    "upgrade": "framing between edge and client",
}
"""Fields of responses that are not compared, with the reason."""

OF_REQUESTS = {
    "connection": "framing between edge and origin",
    "keep-alive": "framing between edge and origin",
    "transfer-encoding": "framing; the content is compared",
    "content-length": "follows from the content, which is compared",
    "te": "framing between edge and origin",
    "via": "quicedge names itself, as RFC 9110 wants",
    "host": "compared on its own",
    "sec-websocket-key": "an edge may make its own",
}
"""Fields of forwarded requests that are not compared, with the reason."""

ADDED_BY_QUICEDGE = frozenset(
    (
        "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
        "x-forwarded-method", "x-forwarded-uri",
    )
)  # fmt: skip
"""quicedge always tells origins of the client. Where the original does too, they are compared."""

CONTENT = frozenset(
    (
        "content-type", "content-encoding", "content-language", "etag", "last-modified",
        "accept-ranges", "vary", "expires", "cache-control", "content-disposition",
    )
)  # fmt: skip
"""Fields of what a response contains: another status, or a page of an edge's own, has others."""

SHARE_OF_BURST = 0.2
"""Share of the requests of a burst that one edge may refuse more than the other."""

_BUILT_IN = re.compile(rb"<hr><center>(?:nginx|openresty|angie)")
_GENERATED = re.compile(r"[0-9a-fA-F-]{16,}")
_DATES = frozenset(("expires", "last-modified"))
_CLOSE = 10.0
"""Seconds between dates that count as the same: both are relative to now."""


class Noise:
    """The list, for two edges with their stand-ins."""

    def __init__(self, original: Mapping[int, str], ours: Mapping[int, str]) -> None:
        """What each local port of the two edges stands for: `host:port`, `unix:/path`, or `:443`
        of a listener."""
        self._original = _Substitution(original)
        self._ours = _Substitution(ours)

    def of_original(self, text: str) -> str:
        return self._original.undo(text)

    def of_ours(self, text: str) -> str:
        return self._ours.undo(text)


class _Substitution:
    """Writes what stands in for an address as the address itself."""

    def __init__(self, ports: Mapping[int, str]) -> None:
        self._ports = ports
        written = "|".join(str(port) for port in ports)
        self._pattern = re.compile(rf"(?:127\.0\.0\.1)?:({written})(?!\d)") if ports else None
        self._alone = {str(port): name for port, name in ports.items() if name.startswith(":")}

    def undo(self, text: str) -> str:
        if text in self._alone:
            return self._alone[text].removeprefix(":")
        if self._pattern is None:
            return text
        return self._pattern.sub(self._named, text)

    def _named(self, match: re.Match[str]) -> str:
        name = self._ports[int(match[1])]
        is_whole = not match[0].startswith(":")
        if name.startswith("unix:"):
            return "localhost" if is_whole else match[0]  # As nginx calls them.
        if not name.startswith(":"):
            # An origin, without the port that everybody takes for granted.
            return name.removesuffix(":80").removesuffix(":443") if is_whole else match[0]
        return f"127.0.0.1{name}" if is_whole else name


def content_of(response: Response) -> bytes:
    """The content without its coding."""
    coding = value_of(response.headers, "content-encoding")
    try:
        if coding == "gzip":
            return gzip.decompress(response.body)
        if coding == "deflate":
            return zlib.decompress(response.body)
    except (OSError, EOFError, zlib.error):
        pass
    return response.body


def is_original_s_own(outcome: Outcome) -> bool:
    """Whether the original has made a response itself, and no origin has."""
    return not outcome.seen or _BUILT_IN.search(content_of(outcome.response)) is not None


def is_ours(response: Response) -> bool:
    """Whether quicedge has made a response itself: those of origins have `via`."""
    return not values_of(response.headers, "via")


def is_own_page(response: Response, *, is_original: bool) -> bool:
    """Whether an edge has made a page of its own: an error, or the content of a redirect."""
    if response.status < 300:
        return False
    if is_original:
        return not response.body or _BUILT_IN.search(content_of(response)) is not None
    return is_ours(response)


def resolved(sample: Sample, location: str) -> str:
    """A Location as clients understand it: absolute, without usual ports and dot segments."""
    absolute = urljoin(sample.url, location)
    parts = urlsplit(absolute)
    if "/." in parts.path:
        # urljoin leaves them in what is absolute.
        path = urlsplit(urljoin(f"{parts.scheme}://{parts.netloc}/", parts.path)).path
        absolute = parts._replace(path=path).geturl()
    usual = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    netloc = parts.netloc.removesuffix(usual) if usual else parts.netloc
    return absolute.replace(parts.netloc, netloc, 1) if parts.netloc else absolute


def same_path(original: str, ours: str) -> bool:
    """Whether two targets are the same but for percent-encoding, repeated slashes and dot
    segments."""
    return _plain_path(original) == _plain_path(ours)


def _plain_path(target: str) -> str:
    path, mark, query = target.partition("?")
    path = normal_path(path.encode("latin-1")).decode("latin-1")
    return re.sub(r"/+", "/", unquote(path, "latin-1")) + mark + query


def are_close(name: str, ours: str, original: str) -> bool:
    """Whether two dates tell of the same moment, relative to when they were made."""
    if name not in _DATES:
        return False
    a, b = _date(ours), _date(original)
    return a is not None and b is not None and abs((a - b).total_seconds()) <= _CLOSE


def are_generated(ours: str, original: str) -> bool:
    """Whether both are identifiers that are new for each request."""
    same_length = len(ours) == len(original)
    return same_length and bool(_GENERATED.fullmatch(ours) and _GENERATED.fullmatch(original))


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def names_of(*lists: Headers) -> Iterable[str]:
    """The names of all fields, each once, in order."""
    return dict.fromkeys(name for headers in lists for name, _ in headers)
