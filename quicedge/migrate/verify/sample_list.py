"""Requests that are made from a configuration, and those for one path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from quicedge.migrate.verify.limits import MAX_BODY, MAX_SAMPLES
from quicedge.migrate.verify.message import Protocol, Sample
from quicedge.migrate.verify.origins import ASK

UNKNOWN_HOST = "nobody.invalid"


@dataclass(frozen=True)
class Made:
    """Samples, and what none could be made for."""

    samples: list[Sample]
    notes: list[str]

    @classmethod
    def of(cls, samples: Iterable[Sample], notes: Iterable[str] = ()) -> Made:
        """Each sample once, and no more than may be played."""
        unique = list({repr(sample): sample for sample in samples}.values())
        told = list(notes)
        if len(unique) > MAX_SAMPLES:
            told.append(f"{len(unique)} requests were made; {MAX_SAMPLES} are played")
        return cls(unique[:MAX_SAMPLES], told)


def samples_of_path(base: str, path: str, *, full: bool, h2: bool) -> Iterator[Sample]:
    """Requests for one path."""
    url = base + path
    yield Sample("GET", url)
    yield Sample("GET", f"{url}?a=1&b=two%20words")
    if not full:
        return
    yield Sample("HEAD", url)
    yield Sample("OPTIONS", url)
    yield Sample("POST", url, [("content-type", "application/x-www-form-urlencoded")], b"a=1&b=2")
    yield Sample("PUT", url, [("content-type", "application/json")], b'{"a": 1}')
    yield Sample("DELETE", url)
    yield Sample("GET", url, [("accept-encoding", "gzip")])
    yield Sample("GET", url, [("accept-encoding", "gzip"), (ASK, "json")])
    browser = [("cookie", "session=abc; theme=dark"), ("referer", f"{base}/elsewhere"),
               ("user-agent", "verify/1"), ("accept-language", "de")]  # fmt: skip
    yield Sample("GET", url, browser)
    yield Sample("GET", url, [("origin", "https://other.example"), ("range", "bytes=0-9")])
    claims = [("x-forwarded-for", "203.0.113.7"), ("x-real-ip", "203.0.113.7"),
              ("x-forwarded-proto", "gopher")]  # fmt: skip
    yield Sample("GET", url, claims)
    yield Sample("GET", url, [("if-none-match", '"page-1"')])
    for asked in ("redirect", "relative-redirect", "404", "500", "503", "204"):
        yield Sample("GET", url, [(ASK, asked)])
    if h2:
        yield replace(Sample("GET", f"{url}?over=h2"), protocol=Protocol.H2)


def samples_of_size(url: str, size: int) -> Iterator[Sample]:
    """Bodies at a limit and beyond it."""
    if 0 < size < MAX_BODY:
        for length in (size, size + 1):
            yield Sample("POST", url, [("content-type", "text/plain")], b"x" * length)
