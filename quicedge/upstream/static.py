"""An upstream without servers: the files below a directory."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Sequence

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.config.unusable import UnusableError
from quicedge.http.conditional import Range, Selection, Validators, select
from quicedge.http.dates import format_date
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Fields, HttpVersion, Request, Response
from quicedge.http.phrases import reason_phrase
from quicedge.http.semantics import response_has_body
from quicedge.shares import Client
from quicedge.upstream.base import OriginStream, ResponseHandler, UpstreamError
from quicedge.upstream.deadline import Deadline
from quicedge.upstream.files import Directory, OpenFile
from quicedge.upstream.places import Places
from quicedge.upstream.proxy_header import Peer
from quicedge.upstream.site import Answer, Found, Site

_METHODS = (b"GET", b"HEAD")
_ALLOW = (b"allow", b"GET, HEAD, OPTIONS")
_PRESENT_ONLY = getattr(os, "RWF_NOWAIT", 0)


class StaticUpstream:
    """Serves the files below `config.root`, with the interface of `group.Upstream`.

    Raises UnusableError if the directory cannot be opened.
    """

    def __init__(
        self, name: str, config: UpstreamConfig, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        assert config.root is not None
        self.name = name
        self.config = config
        self.root = config.root
        self.loop = loop or asyncio.get_running_loop()
        self.running: set[StaticStream] = set()
        self.places: Places[StaticStream] = Places(limits.STATIC_MAX_OPEN, "an open file")
        """Requests that may have a file open."""
        self.requests = 0
        self.bytes_sent = 0
        self._retired = False
        self._idle: asyncio.Event | None = None
        try:
            self.directory = Directory(self.root)
        except OSError as error:
            raise UnusableError(f"upstreams.{name}.root", error) from None
        self.site = Site(self.directory, config)

    def open(
        self,
        request: Request,
        handler: ResponseHandler,
        client: Client | None = None,
        peer: Peer | None = None,
    ) -> OriginStream:
        """Serve a request; the handler is not called before this returns."""
        stream = StaticStream(self, request, handler, client)
        self.running.add(stream)
        self.requests += 1
        return stream

    def stats(self) -> dict[str, dict[str, int]]:
        """Active requests, total requests and content bytes read, per root."""
        counts = {"active": len(self.running), "requests": self.requests}
        return {self.root: {**counts, "bytes_received": self.bytes_sent}}

    # --- open files, shared fairly --------------------------------------------------------------

    @property
    def open_files(self) -> int:
        """The number of open files."""
        return self.places.held

    @property
    def is_usable(self) -> bool:
        """Whether a reload may keep it."""
        return True

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for resources that others hold."""
        return self.places.is_contended

    def reclaim(self) -> None:
        """Take files from stalled clients for waiting ones that hold less; call about once per
        second."""
        self.places.reclaim(self.running)

    def done(self, stream: StaticStream) -> None:
        """A stream has ended."""
        self.places.leave(stream)
        self.running.discard(stream)
        if self._retired and not self.running:
            self.directory.close()
            if self._idle is not None:
                self._idle.set()

    def retire(self) -> None:
        """Accept no more requests; the directory is closed when the running ones have ended."""
        if not self._retired:
            self._retired = True
            if not self.running:
                self.directory.close()

    async def close(self, grace: float = 0.0) -> None:
        """Retire, wait up to `grace` seconds for running requests, then fail the rest."""
        self.retire()
        if not self.running:
            return
        self._idle = asyncio.Event()
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            for stream in list(self.running):
                stream.fail(OriginFailure.NO_SERVER, "shutting down")


class StaticStream:
    """The `OriginStream` of one request.

    The file is read in chunks, one per event loop iteration, and not at all while paused. Data in
    the page cache is read directly; for the rest a thread waits for the disk.
    """

    __slots__ = (
        "_deadline", "_file", "_handler", "_offset", "_paused", "_reading", "_request", "_stop",
        "_upstream", "client", "connect_seconds", "holds_place", "http_version", "queue_seconds",
        "retries", "scheme", "server", "stalled",
    )  # fmt: skip

    def __init__(
        self,
        upstream: StaticUpstream,
        request: Request,
        handler: ResponseHandler,
        client: Client | None,
    ) -> None:
        self.client = client
        self.stalled = False
        self.holds_place = False
        """Whether it occupies one of the upstream's open files."""
        self.server = upstream.root
        self.queue_seconds = 0.0
        self.connect_seconds = 0.0
        self.http_version: HttpVersion | None = None
        self.scheme = "file"
        self.retries = 0
        self._upstream = upstream
        self._request = request
        self._handler: ResponseHandler | None = handler
        self._deadline = Deadline(upstream.loop, self._waited_too_long)
        self._file: OpenFile | None = None
        self._offset = 0
        self._stop = 0
        self._paused = False
        self._reading = True
        """Whether `_start`, `_read` or the result of a thread is pending."""
        upstream.loop.call_soon(self._start)

    # --- OriginStream ---------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Discard the content: that of a GET has no meaning (RFC 9110 section 9.3.1)."""

    def end(self, trailers: Sequence[Field] = ()) -> None:
        """Ignored, like the content."""

    def abort(self) -> None:
        self._finish()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._read_soon()

    # --- the answer -----------------------------------------------------------------------------

    def _start(self) -> None:
        self._reading = False
        handler = self._handler
        if handler is None:
            return
        if self._request.method == b"OPTIONS":
            self._answer(204, [_ALLOW])
            return
        if self._request.method not in _METHODS:
            self._answer(405, [_ALLOW])
            return
        if self._upstream.places.take(self):
            self.serve()
        elif self._handler is not None:
            self._deadline.set(limits.UPSTREAM_QUEUE_TIMEOUT)

    def _waited_too_long(self) -> None:
        self.fail(OriginFailure.OVERLOADED, "no open file became free")

    def place_given(self) -> None:
        """It waited, and may open its file now (`places.Occupant`)."""
        self._upstream.loop.call_soon(self.serve)

    def serve(self) -> None:
        """Open the file and respond; requires a place."""
        self._deadline.cancel()
        handler = self._handler
        if handler is None:
            return
        try:
            found = self._upstream.site.find(self._request)
        except OSError as error:
            kind = OriginFailure.OVERLOADED if error.errno == errno.EMFILE else OriginFailure.RESET
            self.fail(kind, str(error))
            return
        if isinstance(found, Answer):
            self._answer(found.status, found.fields, found.body)
        else:
            self._file = found.file
            self._serve(handler, found)

    def _answer(self, status: int, fields: Sequence[Field] = (), body: bytes = b"") -> None:
        """Respond without a file; by default, the content is one line of text."""
        if not body and status != 204:
            body = f"{status} {reason_phrase(status)}\n".encode()
            fields = [(b"content-type", b"text/plain"), *fields]
        handler = self._finish()
        if handler is None:
            return
        head: Fields = list(fields)
        if status != 204:
            head.append((b"content-length", b"%d" % len(body)))
        handler.response(Response(status, head))
        if response_has_body(self._request.method, status):
            handler.data(body)
        handler.end(())

    def _serve(self, handler: ResponseHandler, found: Found) -> None:
        current = validators(found.file.status, found.coding)
        if found.status == 200:
            selection = select(self._request.method, self._request.fields, current, time.time())
        else:
            selection = Selection(found.status)  # an error has neither conditions nor ranges
        status, part = selection
        fields: Fields = [(b"accept-ranges", b"bytes")]
        if status == 416:
            self._answer(416, [*fields, (b"content-range", b"bytes */%d" % current.size)])
            return
        if status == 412:
            self._answer(412)
            return
        if status != 404:
            fields += ((b"etag", current.etag), (b"last-modified", format_date(current.modified)))
        if status == 304:
            self._finish()
            # RFC 9110 section 15.4.5: what caches go by.
            fields += [line for line in found.fields if line[0] in (b"cache-control", b"vary")]
            handler.response(Response(304, fields))
            handler.end(())
            return
        whole = Range(0, current.size)
        self._offset, self._stop = part or whole
        fields += found.fields
        fields.append((b"content-length", b"%d" % (self._stop - self._offset)))
        if part is not None:
            where = (part.first, part.stop - 1, current.size)
            fields.append((b"content-range", b"bytes %d-%d/%d" % where))
        handler.response(Response(status, fields))
        if self._handler is None:
            return
        if self._request.method == b"HEAD" or self._offset == self._stop:
            self._finish()
            handler.end(())
        else:
            self._read()

    # --- reading --------------------------------------------------------------------------------

    def _read_soon(self) -> None:
        if not self._reading and not self._paused and self._handler is not None:
            self._reading = True
            self._upstream.loop.call_soon(self._read)

    def _read(self) -> None:
        self._reading = False
        file = self._file
        if self._paused or file is None:
            return
        size = min(self._stop - self._offset, limits.STATIC_READ_SIZE)
        buffer = bytearray(size)
        try:
            read = os.preadv(file.descriptor, [buffer], self._offset, _PRESENT_ONLY)
        except OSError:  # not in the page cache, or RWF_NOWAIT is unsupported
            read = 0
        if read:
            self._take(bytes(buffer[:read]))
            return
        self._reading = True
        # The thread gets its own descriptor: this one may be closed and its number reused.
        duplicate = os.dup(file.descriptor)
        waiting = self._upstream.loop.run_in_executor(
            None, _read_slowly, duplicate, size, self._offset
        )
        waiting.add_done_callback(self._was_read)

    def _was_read(self, done: asyncio.Future[bytes]) -> None:
        self._reading = False
        if self._handler is None:
            done.exception()
        elif (error := done.exception()) is not None:
            self.fail(OriginFailure.RESET, str(error))
        else:
            self._take(done.result())

    def _take(self, data: bytes) -> None:
        handler = self._handler
        assert handler is not None
        if not data:
            self.fail(OriginFailure.RESET, "the file became shorter")
            return
        self._offset += len(data)
        self._upstream.bytes_sent += len(data)
        if self._offset < self._stop:
            handler.data(data)
            self._read_soon()
            return
        self._finish()
        handler.data(data)
        handler.end(())

    # --- the end --------------------------------------------------------------------------------

    def fail(self, kind: OriginFailure, detail: str) -> None:
        """Report a failure to the exchange."""
        handler = self._finish()
        if handler is not None:
            handler.failed(UpstreamError(kind, detail))

    def _finish(self) -> ResponseHandler | None:
        handler, self._handler = self._handler, None
        if handler is not None:
            if self._file is not None:
                os.close(self._file.descriptor)
                self._file = None
            self._deadline.cancel()
            self._upstream.done(self)
        return handler


def _read_slowly(descriptor: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def validators(status: os.stat_result, coding: bytes | None = None) -> Validators:
    """The validators of the current state of a file; `coding` is that of its content.

    RFC 9110 section 8.8.1: a tag derived from a timestamp is weak as long as the file may change
    again without changing the timestamp; one second covers the clocks of all file systems.
    """
    coded = b"" if coding is None else b"-" + coding
    etag = b'"%x-%x%b"' % (status.st_mtime_ns, status.st_size, coded)
    if time.time() - status.st_mtime < 1:
        etag = b"W/" + etag
    return Validators(etag, int(status.st_mtime), status.st_size)
