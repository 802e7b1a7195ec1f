"""Requests and responses as filters see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from quicedge.filters.body import content
from quicedge.filters.headers import Headers
from quicedge.http.cookies import cookies
from quicedge.http.grammar import AUTHORITY, PATH, TOKEN
from quicedge.http.message import Request as EdgeRequest
from quicedge.http.message import Response as EdgeResponse
from quicedge.http.target import is_ambiguous

_HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]


class Request:
    """The head of a request; `target` and `authority` can be set, `headers` changed in place.
    Method and scheme are as the client sent them.

    Route and limits have been chosen by what the client sent: a new target leads to no other route.
    """

    __slots__ = ("_authority", "_method", "_scheme", "_target", "headers", "is_changed")

    def __init__(
        self,
        method: str = "GET",
        target: str = "/",
        headers: _HeadersLike = (),
        *,
        authority: str = "localhost",
        scheme: str = "https",
    ) -> None:
        if not TOKEN.fullmatch(method.encode()):
            raise ValueError(f"{method!r} is not a method")
        self._method = method
        self._scheme = scheme
        self.headers = Headers(headers)
        self.target = target
        self.authority = authority
        self.is_changed = False

    @classmethod
    def of(cls, request: EdgeRequest) -> Request:
        """A request of the edge."""
        head = cls.__new__(cls)
        head._method = request.method.decode("ascii")
        head._scheme = request.scheme.decode("ascii")
        head._authority = request.authority.decode("ascii")
        head._target = request.path.decode("ascii")
        head.headers = Headers.of(request.fields)
        head.is_changed = False
        return head

    @property
    def method(self) -> str:
        """`GET`, `POST`, ...: by it the edge has judged the request, so it cannot be changed."""
        return self._method

    @property
    def scheme(self) -> str:
        """`https`."""
        return self._scheme

    @property
    def target(self) -> str:
        """Path and query, percent-encoded: `/a%20b?q=1`; `*` of an OPTIONS request."""
        return self._target

    @target.setter
    def target(self, value: str) -> None:
        encoded = value.encode("ascii", "replace")
        if not value.isascii() or not (PATH.fullmatch(encoded) or value == "*"):
            raise ValueError(f"{value!r} is not a target such as '/a%20b?q=1'")
        if is_ambiguous(encoded):
            raise ValueError(f"{value!r} has dot segments that servers disagree about")
        self._target = value
        self.is_changed = True

    @property
    def authority(self) -> str:
        """The host that is asked for, with its port if there is one."""
        return self._authority

    @authority.setter
    def authority(self, value: str) -> None:
        if not value.isascii() or not AUTHORITY.fullmatch(value.encode()):
            raise ValueError(f"{value!r} is not a host such as 'example.com:8443'")
        self._authority = value
        self.is_changed = True

    @property
    def path(self) -> str:
        """The target without its query."""
        return self._target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query, without the question mark; empty if there is none."""
        return self._target.partition("?")[2]

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, by name; of several with one name the first."""
        found: dict[str, str] = {}
        for name, value in cookies(self.headers.to_fields()):
            found.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        return found

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.target!r}, authority={self.authority!r})"


class Response:
    """A response: one that a filter gives, or the head of one that is on its way to the client.

    `body` is None as long as the content is the origin's, which is passed on as it comes. Setting
    it replaces the content. Text is encoded in UTF-8.
    """

    __slots__ = ("_body", "_status", "headers", "is_changed")

    def __init__(
        self, status: int = 200, headers: _HeadersLike = (), body: bytes | str = b""
    ) -> None:
        self.headers = Headers(headers)
        self._body: bytes | None = None
        self.status = status
        self.body = body
        self.is_changed = False

    @classmethod
    def of(cls, response: EdgeResponse) -> Response:
        """A response of the edge."""
        head = cls.__new__(cls)
        head._status = response.status
        head._body = None
        head.headers = Headers.of(response.fields)
        head.is_changed = False
        return head

    @property
    def status(self) -> int:
        """The status code, of a final response."""
        return self._status

    @status.setter
    def status(self, value: int) -> None:
        if not isinstance(value, int) or not 200 <= value <= 599:
            raise ValueError(f"{value!r} is not the status of a final response")
        self._status = value
        self.is_changed = True

    @property
    def body(self) -> bytes | None:
        """The whole content; None: the origin's."""
        return self._body

    @body.setter
    def body(self, value: bytes | str) -> None:
        self._body = value.encode() if isinstance(value, str) else content(value)

    def __repr__(self) -> str:
        return f"Response({self.status})"
