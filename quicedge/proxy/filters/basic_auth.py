"""Basic authentication (RFC 7617)."""

from __future__ import annotations

import binascii
from collections.abc import Awaitable, Iterator, Mapping

from quicedge.config import filters as config
from quicedge.config.limits import RETRY_AFTER
from quicedge.config.unusable import UnusableError
from quicedge.http.forwarding import Written
from quicedge.http.message import Request
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.passwords import Passwords, TooManyWaiting, read_htpasswd
from quicedge.proxy.filters.resources import Resources, reason_of
from quicedge.proxy.filters.route_filter import RequestResult, RouteFilter
from quicedge.proxy.reply import Reply, text_reply
from quicedge.telemetry.outcomes import Outcome


def credentials(request: Request) -> tuple[bytes, bytes] | None:
    """User and password of a request; None if it has none that can be understood."""
    values = [value for name, value in request.fields if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, encoded = values[0].partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, mark, password = binascii.a2b_base64(encoded.strip()).partition(b":")
    except binascii.Error:
        return None
    return (user, password) if mark else None


class BasicAuth(RouteFilter):
    """Lets requests with a user's password pass; the origin gets the name, not the password."""

    def __init__(
        self,
        settings: config.BasicAuth,
        users: Mapping[bytes, bytes],
        *,
        tell_underscores: bool = False,
    ) -> None:
        self._passwords = Passwords(users)
        realm = settings.realm.replace("\\", "\\\\").replace('"', '\\"')
        self._challenge = b'Basic realm="%b", charset="UTF-8"' % realm.encode()
        self._forwards = settings.forward_credentials
        self._user_header = settings.user_header.lower().encode() if settings.user_header else None
        names = [] if self._user_header is None else [self._user_header]
        self.written = frozenset(names)
        self._written = Written(names, tell_underscores=tell_underscores)

    def on_request(
        self, request: Request, exchange: Exchange
    ) -> RequestResult | Awaitable[RequestResult]:
        given = credentials(request)
        if given is None:
            return self._refusal()
        if self._passwords.is_known(*given):
            return self._passed(request, given[0])
        return self._check(request, exchange, *given)

    async def _check(
        self, request: Request, exchange: Exchange, user: bytes, password: bytes
    ) -> RequestResult:
        try:
            if await self._passwords.check(user, password, exchange.client.share):
                return self._passed(request, user)
        except TooManyWaiting:
            return text_reply(
                503, [(b"retry-after", b"%d" % RETRY_AFTER)], outcome=Outcome.OVERLOADED,
                reason="too many passwords wait to be checked",
            )  # fmt: skip
        return self._refusal()

    def _refusal(self) -> Reply:
        return text_reply(401, [(b"www-authenticate", self._challenge)], outcome=Outcome.DENIED)

    def _passed(self, request: Request, user: bytes) -> Request:
        fields = request.fields
        if not self._forwards:
            fields = [line for line in fields if line[0] != b"authorization"]
        name = self._user_header
        if name is not None:
            fields = self._written.dropped_from(fields)
            if user.isascii() and user.decode().isprintable():
                fields.append((name, user.strip()))
        return request.with_fields(fields)


def build(given: config.BasicAuth, where: str, resources: Resources) -> Iterator[RouteFilter]:
    """Raises UnusableError if the file of users cannot be used."""
    users = {name.encode(): hashed.encode() for name, hashed in given.users.items()}
    if given.htpasswd is not None:
        try:
            users |= read_htpasswd(given.htpasswd)
        except (OSError, ValueError) as error:
            raise UnusableError(f"{where}.htpasswd", reason_of(given.htpasswd, error)) from None
    yield BasicAuth(given, users, tell_underscores=resources.tell_underscores)
