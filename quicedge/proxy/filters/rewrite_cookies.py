"""Changes the domain, path and flags of the cookies that origins set.

The cookies by which the edge keeps clients with their server are its own and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from quicedge.config import filters as config
from quicedge.config.filterlimits import MATCHED_LENGTH, TEMPLATE_MAX_VALUE
from quicedge.config.filters import NO_DOMAIN, UPSTREAM, CookieFlag
from quicedge.config.patterns import compile_pattern
from quicedge.config.url_prefix import joined, path_below
from quicedge.http.message import Fields, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.mounts import Mounts
from quicedge.proxy.filters.replacement import Replacement
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.proxy.templates import Template

Rule = Callable[[bytes, Exchange], bytes | None]
"""What the value of an attribute becomes, empty if it has none; None: the rule is not for it."""

# cookie-av: any CHAR except CTLs or ";" (RFC 6265 section 4.1.1)
_VALUE = re.compile(rb"[\x20-\x3a\x3c-\x7e\x80-\xff]*")

_WRITTEN = {
    CookieFlag.SECURE: b"Secure",
    CookieFlag.HTTP_ONLY: b"HttpOnly",
    CookieFlag.SAME_SITE_STRICT: b"SameSite=Strict",
    CookieFlag.SAME_SITE_LAX: b"SameSite=Lax",
    CookieFlag.SAME_SITE_NONE: b"SameSite=None",
}
"""The flags that set an attribute; the others remove theirs."""


class RewriteCookies(RouteFilter):
    """Rewrites each Set-Cookie of a response on its own."""

    def __init__(self, settings: config.RewriteCookies, mounts: Mounts) -> None:
        self._own = mounts.own_cookies
        self._rules = {
            b"domain": [_domain_rule(old, new, mounts) for old, new in settings.domain.items()],
            b"path": [_path_rule(old, new, mounts) for old, new in settings.path.items()],
        }
        self._flags = [
            (_names_cookie(name), _wanted(flags)) for name, flags in settings.flags.items()
        ]

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        if not any(name == b"set-cookie" for name, _ in response.fields):
            return response
        if exchange.first_byte_at is None:
            return response  # not the origin's
        fields: Fields = [
            (name, self._cookie(value, exchange) if name == b"set-cookie" else value)
            for name, value in response.fields
        ]
        return Response(response.status, fields, response.version)

    def _cookie(self, value: bytes, exchange: Exchange) -> bytes:
        """The value of a Set-Cookie; as it was, byte for byte, if nothing of it changes."""
        pair, *attributes = (part.strip(b" \t") for part in value.split(b";"))
        cookie = pair.partition(b"=")[0].rstrip(b" \t")
        if cookie in self._own:
            return value
        wanted = next((flags for is_meant, flags in self._flags if is_meant(cookie)), {})
        missing = dict(wanted)
        kept = [pair]
        for given in attributes:
            attribute = given
            name = given.partition(b"=")[0].rstrip(b" \t").lower()
            if name in wanted:
                missing.pop(name, None)
                attribute = _as_wanted(given, wanted[name])
            elif name in self._rules:
                attribute = self._rewritten(self._rules[name], given, exchange)
            if attribute or not given:
                kept.append(attribute)
        kept += [written for written in missing.values() if written is not None]
        return value if kept == [pair, *attributes] else b"; ".join(kept)

    def _rewritten(self, rules: Sequence[Rule], attribute: bytes, exchange: Exchange) -> bytes:
        """A domain or path by the first rule for it; empty if it is removed."""
        name, _, value = attribute.partition(b"=")
        value = value.lstrip(b" \t")
        for rule in rules if value else ():
            found = rule(value, exchange)
            if found is None:
                continue
            if not found:
                return b""
            is_sound = len(found) <= len(value) + TEMPLATE_MAX_VALUE and _VALUE.fullmatch(found)
            return name + b"=" + found if is_sound and found != value else attribute
        return attribute


def _wanted(flags: Sequence[CookieFlag]) -> dict[bytes, bytes | None]:
    """The attributes that flags are about, in the order in which they are added; None: removed."""
    ordered = sorted(flags, key=list(CookieFlag).index)
    return {flag.attribute.encode(): _WRITTEN.get(flag) for flag in ordered}


def _as_wanted(attribute: bytes, written: bytes | None) -> bytes:
    """A flag that a cookie has, as it is wanted; empty: not at all."""
    if written is None:
        return b""
    return attribute if attribute.lower() == written.lower() else written


def _names_cookie(name: str) -> Callable[[bytes], bool]:
    """Whether a key of `flags` is for a cookie of this name."""
    if name == "*":
        return lambda cookie: True
    if not name.startswith("~"):
        wanted = name.lower().encode()
        return lambda cookie: cookie.lower() == wanted
    pattern = compile_pattern(name[1:])
    return lambda cookie: len(cookie) <= MATCHED_LENGTH and pattern.search(cookie) is not None


# --- rules ----------------------------------------------------------------------------------------


def _domain_rule(old: str, new: str, mounts: Mounts) -> Rule:
    if old.startswith("~") and new != NO_DOMAIN:
        return Replacement(old[1:], new).of
    is_meant = _is_domain(old, mounts)
    to = None if new == NO_DOMAIN else Template(new)

    def rule(value: bytes, exchange: Exchange) -> bytes | None:
        if not is_meant(value.removeprefix(b".").lower(), exchange):
            return None
        return b"" if to is None else to.fill(exchange)

    return rule


def _is_domain(old: str, mounts: Mounts) -> Callable[[bytes, Exchange], bool]:
    """Whether a rule is for a domain, in lower case and without a dot before it."""
    if old == UPSTREAM:
        return mounts.is_own_domain
    if old.startswith("~"):
        pattern = compile_pattern(old[1:])
        return lambda domain, _: (
            len(domain) <= MATCHED_LENGTH and pattern.search(domain) is not None
        )
    wanted = Template(old.removeprefix(".").lower())
    return lambda domain, exchange: domain == wanted.fill(exchange)


def _path_rule(old: str, new: str, mounts: Mounts) -> Rule:
    if old.startswith("~"):
        return Replacement(old[1:], new).of
    prefix, to = Template(old, for_url=True), Template(new, for_url=True)

    def of_upstream(path: bytes, exchange: Exchange) -> bytes | None:
        if path[:1] != b"/":
            return None
        return _below(to.fill(exchange), mounts.of(exchange).cookie_path(path))

    def rule(path: bytes, exchange: Exchange) -> bytes | None:
        rest = path_below(path, prefix.fill(exchange))
        return None if rest is None else _below(to.fill(exchange), rest)

    return of_upstream if old == UPSTREAM else rule


def _below(start: bytes, rest: bytes) -> bytes:
    """A path for cookies: that of a folder is as it is written, for `/a/` does not cover `/a`."""
    return start if rest in (b"", b"/") else joined(start, rest)


def build(given: config.RewriteCookies, where: str, resources: Resources) -> Iterator[RouteFilter]:
    yield RewriteCookies(given, resources.mounts)
