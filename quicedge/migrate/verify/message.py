"""What is sent to both edges, what clients get and what origins see."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlsplit

Headers = list[tuple[str, str]]
"""Names in lower case, in the order of the message."""


def values_of(headers: Headers, name: str) -> list[str]:
    return [value for known, value in headers if known == name]


def value_of(headers: Headers, name: str) -> str | None:
    """The first value of a field."""
    return next(iter(values_of(headers, name)), None)


class Protocol(StrEnum):
    """What a request is sent with."""

    HTTP_1_1 = "http/1.1"
    H2 = "h2"


@dataclass(frozen=True)
class Sample:
    """A request to play."""

    method: str
    url: str
    """Absolute; its port is that of the original configuration."""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    protocol: Protocol = Protocol.HTTP_1_1
    source: str | None = None
    """The loopback address it comes from; the player's choice by default."""
    shows_certificate: bool = True
    """The client shows a certificate if it is asked for one."""
    burst: int = 1
    """How many are sent at once; beyond one only the statuses are compared."""

    @property
    def is_secure(self) -> bool:
        return self.url.startswith("https:")

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if self.is_secure else 80)

    @property
    def host(self) -> str:
        """Of the URL, without its port."""
        return urlsplit(self.url).hostname or ""

    @property
    def authority(self) -> str:
        """The Host field: given, or the URL's."""
        return value_of(self.headers, "host") or urlsplit(self.url).netloc

    @property
    def target(self) -> str:
        """Path and query as they are sent."""
        scheme_and_host = self.url.split("/", 3)
        return "/" + scheme_and_host[3] if len(scheme_and_host) > 3 else "/"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def over(self, scheme: str) -> Sample:
        """The same to the usual port of another scheme."""
        return replace(self, url=f"{scheme}://{self.host}{self.target}")

    def __str__(self) -> str:
        text = f"{self.method} {self.url}"
        if self.burst > 1:
            text += f" ({self.burst} at once)"
        if self.protocol is Protocol.H2:
            text += " over HTTP/2"
        if not self.shows_certificate:
            text += " without a certificate"
        notes = []
        for name, value in self.headers:
            notes.append(f"{name}: {value if len(value) < 40 else value[:37] + '...'}")
        if self.body:
            notes.append(f"{len(self.body)} bytes")
        return f"{text} [{'; '.join(notes)}]" if notes else text


@dataclass
class Response:
    """What a client got."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    failure: str = ""
    """Why there is no whole response; then `status` may be 0."""
    client: tuple[str, int] = ("", 0)
    """Address and port that the request came from."""


@dataclass
class Seen:
    """A request as an origin saw it."""

    origin: str
    """The address that the origin stands for."""
    method: str
    target: str
    headers: Headers
    body: bytes = b""


@dataclass
class Outcome:
    """What came of a sample at one of the edges."""

    response: Response
    seen: list[Seen] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    """Of a burst: how often each status came."""
    over_tls: Outcome | None = None
    """Of a plain request that was redirected to https: what came of it there."""
