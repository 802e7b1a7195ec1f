"""Parsing of https URLs into a target for the client."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from quicedge.config.host_port import HostPort
from quicedge.http.grammar import AUTHORITY

HTTPS_PORT = 443
_ALLOWED = "/%:@!$&'()*+,;=-._~?[]{}|\\^`\"<>"
"""Characters of path and query that are sent unchanged; others become percent-encoded UTF-8."""

_USERINFO = re.compile("//[^/?#]*@")
"""Hidden in error messages, which end up in logs."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class UrlError(ValueError):
    """An invalid URL; the message says why."""


@dataclass(frozen=True)
class Target:
    """The target of an https URL."""

    host: str
    """An ASCII host name or IP address, with the zone of an IPv6 address if any."""
    port: int
    authority: str
    """For `:authority`: no userinfo (RFC 9114 section 4.3.1), no zone, no default port."""
    path: str
    """For `:path`: with the query, and with its `?` when that is empty (RFC 3986 section 6.2.3)."""
    credentials: bytes | None = None
    """Value of `authorization` for the URL's userinfo."""

    @property
    def url(self) -> str:
        """The URL without credentials and fragment."""
        return f"https://{self.authority}{self.path}"

    def is_same_origin(self, other: Target) -> bool:
        return (self.host, self.port) == (other.host, other.port)


def parse(text: str, *, path_as_is: bool = False) -> Target:
    """Parse a URL, by default https; raises UrlError.

    `path_as_is`: send `.` and `..` in the path instead of resolving them (RFC 3986 section 5.2.4).
    """
    shown = repr(_USERINFO.sub("//***@", text))
    for character in text:
        if character.isspace() or not character.isprintable():
            code = quote(character, safe="")
            raise UrlError(f"{shown} contains {character!r}; encode it as {code}")
    if "://" not in text:
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UrlError(f"{shown} is not an https URL: {error}") from error
    if parts.scheme != "https" or not parts.hostname:
        raise UrlError(f"{shown} is not an https URL")
    if port == 0:
        raise UrlError(f"{shown}: port 0 is not valid")
    port = port or HTTPS_PORT
    host, _, zone = parts.hostname.partition("%25" if "%25" in parts.hostname else "%")
    named = _ascii(host)
    whole = HostPort(named, port)
    authority = whole.url_host if port == HTTPS_PORT else str(whole)
    if not AUTHORITY.fullmatch(authority.encode("ascii", "replace")):
        raise UrlError(f"{shown}: {host!r} is not a valid host")
    return Target(
        host=f"{named}%{unquote(zone)}" if zone else named,
        port=port,
        authority=authority,
        path=_path(text, path_as_is=path_as_is),
        credentials=_credentials(parts.username, parts.password),
    )


def redirected(target: Target, location: bytes) -> Target:
    """Resolve a `location` field against a target; raises UrlError."""
    text = quote(location.decode("utf-8", "replace").strip(), safe=_ALLOWED + "#")
    return parse(_resolved(target, text))


def _resolved(target: Target, reference: str) -> str:
    """RFC 3986 section 5.2.2; `urljoin` would drop the "?" of an empty query."""
    if _SCHEME.match(reference):
        # Without "//" it is not https; `parse` would mistake it for a host.
        return reference if "://" in reference else f"{reference.partition(':')[0]}:///"
    reference = reference.partition("#")[0]
    if reference.startswith("//"):
        return f"https:{reference}"
    path = target.path.partition("?")[0]
    if not reference:
        path = target.path
    elif reference.startswith("?"):
        path += reference
    elif reference.startswith("/"):
        path = reference
    else:
        path = f"{path.rpartition('/')[0]}/{reference}"
    return f"https://{target.authority}{path}"


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise UrlError(f"{host!r} is not a host name: {error}") from error


def _path(text: str, *, path_as_is: bool) -> str:
    # urlsplit drops the "?" of an empty query.
    rest = text.partition("://")[2].partition("#")[0]
    found = re.search(r"[/?]", rest)
    rest = rest[found.start() :] if found else ""
    path, mark, query = rest.partition("?")
    path = path or "/"
    if not path_as_is:
        path = _without_dots(path)
    return quote(path + mark + query, safe=_ALLOWED)


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, of a path that begins with a slash."""
    segments: list[str] = []
    *parents, last = path.split("/")[1:]
    for segment in parents:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    if last == "..":
        del segments[-1:]
    return "/" + "/".join([*segments, "" if last in (".", "..") else last])


def _credentials(user: str | None, password: str | None) -> bytes | None:
    if user is None and password is None:
        return None
    pair = unquote_to_bytes(user or "") + b":" + unquote_to_bytes(password or "")
    return b"Basic " + b64encode(pair)
