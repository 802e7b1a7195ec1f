"""What a request for a static site leads to: a file, a listing, a redirect, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes

from quicedge.config.globs import compile_glob
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.encodings import accept_encoding, choose
from quicedge.http.media_types import TYPES, content_type
from quicedge.http.message import Field, Fields, Request
from quicedge.http.phrases import reason_phrase
from quicedge.http.target import normal_path
from quicedge.upstream.files import Directory, IsDirectory, NotServed, OpenFile

_URI_CHARACTERS = "/%:@!$&'()*+,;="
"""What a path may contain beside unreserved characters, encoded octets included."""
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

    def find(self, request: Request) -> Found | Answer:
        """What to send for a request; raises OSError if the machine is out of resources."""
        path = normal_path(request.path)
        fields = request.fields
        try:
            return self._find(path, request)
        except IsDirectory:
            asked = _asked(request)
            if not asked.endswith(b"/"):
                return _redirect(asked + b"/", request)
            path += b"/"  # which was lost in rewriting, and would be again
            try:
                return self._index(path, fields)
            except NotServed:
                pass
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
            except (NotServed, IsDirectory):
                pass
        if self._not_found is not None:
            try:
                found = self._open(self._not_found, fields)
            except (NotServed, IsDirectory):
                pass
            else:
                found.status = 404
                return found
        return Answer(404, [(b"content-type", b"text/plain; charset=utf-8")], _line(404))

    def _find(self, path: bytes, request: Request) -> Found | Answer:
        fields = request.fields
        if path.endswith(b"/"):
            return self._index(path, fields)
        if self._clean and path.endswith(b".html"):
            clean = self._clean_path(path, request)
            if clean is not None:
                self._directory.open(path).close()
                return _redirect(clean, request)
        try:
            return self._open(path, fields)
        except IsDirectory:
            if self._clean:
                try:
                    return self._open(path + b".html", fields)
                except (NotServed, IsDirectory):
                    pass
            raise
        except NotServed:
            if not self._clean or path.endswith(b".html"):
                raise
            try:
                return self._open(path + b".html", fields)
            except IsDirectory:
                raise NotServed from None

    def _index(self, path: bytes, fields: Sequence[Field]) -> Found:
        """The first index that a directory has."""
        for index in self._indexes[:-1]:
            try:
                return self._open(path, fields, index)
            except NotServed:
                continue
        return self._open(path, fields, self._indexes[-1])

    def _clean_path(self, path: bytes, request: Request) -> bytes | None:
        """The clean form of what the client has asked for, in which the name of an index is empty.

        None: it has asked for something else, and rewriting has made this name of it.
        """
        name = path.rpartition(b"/")[2]
        parent, _, asked = _asked(request).rpartition(b"/")
        if asked != name:
            return None
        return parent + b"/" + (b"" if name in self._indexes else name.removesuffix(b".html"))

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
            except (NotServed, IsDirectory):
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


def _target_of(request: Request) -> bytes:
    """What the client has asked for: it follows redirects through the same rewriting."""
    return request.path if request.original_path is None else request.original_path


def _asked(request: Request) -> bytes:
    """The path of that, in normal form."""
    return normal_path(_target_of(request))


def _redirect(path: bytes, request: Request) -> Answer:
    """A redirect to another path of this host, with the query of the client."""
    _, mark, query = _target_of(request).partition(b"?")
    # Browsers take two slashes at the start for a host, and a backslash for a slash.
    path = b"/" + quote_from_bytes(path.lstrip(b"/"), _URI_CHARACTERS).encode()
    head: Fields = [
        (b"location", path + mark + query),
        (b"content-type", b"text/plain; charset=utf-8"),
    ]
    return Answer(301, head, _line(301))


def _line(status: int) -> bytes:
    return f"{status} {reason_phrase(status)}\n".encode()
