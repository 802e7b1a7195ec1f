"""What a request for a static site leads to: a file, a listing, a redirect, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quicedge.config.globs import compile_glob
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.encodings import accept_encoding, choose
from quicedge.http.media_types import TYPES, content_type
from quicedge.http.message import Field, Fields
from quicedge.http.phrases import reason_phrase
from quicedge.http.target import normal_path
from quicedge.upstream.files import Directory, MovedTo, NotServed, OpenFile

_SUFFIXES = {b"br": b".br", b"gzip": b".gz", b"zstd": b".zst"}


@dataclass(slots=True)
class Found:
    """A file to send, which the caller must close; `fields` are of every response with it."""

    file: OpenFile
    fields: Fields
    status: int = 200
    """200, or 404 for the page that says so."""
    coding: bytes | None = None
    """The content coding of the file."""


@dataclass(slots=True)
class Answer:
    """A response without a file."""

    status: int
    fields: Fields = field(default_factory=list)
    body: bytes = b""


class Site:
    """The rules of a static site, tried in this order:

    the file itself, or the index of a directory; `NAME.html` (`clean_urls`); a listing; the
    `fallback`; the page for what is not found.
    """

    def __init__(self, directory: Directory, config: UpstreamConfig) -> None:
        self._directory = directory
        self._indexes = [name.encode() for name in config.index]
        self._lists = config.listing
        self._clean = config.clean_urls
        self._fallback = _target(config.fallback)
        self._not_found = _target(config.not_found)
        self._codings = [name.encode() for name in config.precompressed]
        types = {key.lower().encode(): value.encode() for key, value in config.mime_types.items()}
        self._types = {**TYPES, **types}
        self._caching = [
            (compile_glob(pattern), value.encode())
            for pattern, value in config.cache_control.items()
        ]

    def find(self, target: bytes, fields: Sequence[Field]) -> Found | Answer:
        """What to send for a request; raises OSError if the machine is out of resources."""
        path = normal_path(target)
        try:
            return self._find(path, target, fields)
        except MovedTo as moved:
            return _redirect(_into(moved), target)
        except NotServed:
            pass
        if self._lists and path.endswith(b"/"):
            try:
                return self._listing(path, fields)
            except NotServed:
                pass
        # What looks like a file is no page of an application: a missing script must not be one.
        if self._fallback is not None and b"." not in path.rpartition(b"/")[2]:
            try:
                return self._open(self._fallback, fields)
            except (NotServed, MovedTo):
                pass
        if self._not_found is not None:
            try:
                found = self._open(self._not_found, fields)
            except (NotServed, MovedTo):
                pass
            else:
                found.status = 404
                return found
        return Answer(404, [(b"content-type", b"text/plain; charset=utf-8")], _line(404))

    def _find(self, path: bytes, target: bytes, fields: Sequence[Field]) -> Found | Answer:
        if self._clean and path.endswith(b".html"):
            self._directory.open(path).close()
            return _redirect(self._without_html(path), target)
        if path.endswith(b"/"):
            for index in self._indexes[:-1]:
                try:
                    return self._open(path, fields, index)
                except NotServed:
                    continue
            return self._open(path, fields, self._indexes[-1])
        try:
            return self._open(path, fields)
        except MovedTo as moved:
            if self._clean:
                try:
                    return self._open(path + b".html", fields)
                except (NotServed, MovedTo):
                    pass
            return _redirect(_into(moved), target)
        except NotServed:
            if not self._clean or path.endswith(b".html"):
                raise
            try:
                return self._open(path + b".html", fields)
            except MovedTo:
                raise NotServed from None

    def _without_html(self, path: bytes) -> bytes:
        """The clean form of a name: that of an index is empty."""
        name = path.rpartition(b"/")[2]
        return b"" if name in self._indexes else name.removesuffix(b".html")

    def _open(self, path: bytes, fields: Sequence[Field], index: bytes = b"index.html") -> Found:
        """The file of a path, or a compressed form of it."""
        file = self._directory.open(path, index)
        served = path + index if path.endswith(b"/") else path
        described: Fields = [(b"content-type", content_type(file.name, self._types))]
        for pattern, value in self._caching:
            if pattern.search(served) is not None:
                described.append((b"cache-control", value))
                break
        if not self._codings:
            return Found(file, described)
        described.append((b"vary", b"accept-encoding"))
        coding = self._compressed(served, file, fields)
        if coding is None:
            return Found(file, described)
        compressed, name = coding
        file.close()
        described.append((b"content-encoding", name))
        return Found(compressed, described, coding=name)

    def _compressed(
        self, path: bytes, file: OpenFile, fields: Sequence[Field]
    ) -> tuple[OpenFile, bytes] | None:
        """The compressed form that the client likes best of those beside a file."""
        offered = list(self._codings)
        while offered and (coding := choose(accept_encoding(fields), offered)) is not None:
            try:
                found = self._directory.open(path + _SUFFIXES[coding])
            except (NotServed, MovedTo):
                offered.remove(coding)
                continue
            except OSError:
                file.close()
                raise
            if found.status.st_mtime >= file.status.st_mtime:
                return found, coding
            found.close()  # of an earlier version
            offered.remove(coding)
        return None

    def _listing(self, path: bytes, fields: Sequence[Field]) -> Answer:
        from quicedge.upstream.listing import html_listing, json_listing

        entries = self._directory.entries(path)
        vary = (b"vary", b"accept")
        if any(name == b"accept" and value == b"application/json" for name, value in fields):
            return Answer(
                200, [(b"content-type", b"application/json"), vary], json_listing(entries)
            )
        head: Fields = [(b"content-type", b"text/html; charset=utf-8"), vary]
        # Names come from whoever may write there: nothing on the page may run.
        policy = b"default-src 'none'; style-src 'unsafe-inline'"
        head.append((b"content-security-policy", policy))
        return Answer(200, head, html_listing(path, entries))


def _target(path: str | None) -> bytes | None:
    return None if path is None else normal_path(path.encode())


def _into(moved: MovedTo) -> bytes:
    """A directory, as seen from its parent."""
    return moved.path.partition(b"?")[0].rstrip(b"/").rpartition(b"/")[2] + b"/"


def _redirect(name: bytes, target: bytes) -> Answer:
    """A redirect to a name in the directory of a target, with its query.

    It is relative, because the path may have been rewritten on its way here.
    """
    _, mark, query = target.partition(b"?")
    location = b"./" + name + mark + query
    head: Fields = [(b"location", location), (b"content-type", b"text/plain; charset=utf-8")]
    return Answer(301, head, _line(301))


def _line(status: int) -> bytes:
    return f"{status} {reason_phrase(status)}\n".encode()
