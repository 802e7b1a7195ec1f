"""Compresses responses on their way to the client."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Protocol

from quicedge.config import filters as config
from quicedge.config.filterlimits import COMPRESSORS_KEPT, ENCODINGS_REMEMBERED
from quicedge.config.unusable import UnusableError
from quicedge.http.encodings import accept_encoding, choose
from quicedge.http.message import Field, Fields, Request, Response
from quicedge.http.semantics import response_has_body
from quicedge.http.vary import with_vary
from quicedge.proxy.body import BodyStage
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.shares import Client, Pool


class Compressor(Protocol):
    """One compressed stream."""

    def write(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes:
        """What makes everything written so far readable."""

    def finish(self) -> bytes: ...


class _Gzip:
    def __init__(self, level: int) -> None:
        self._stream = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self.write = self._stream.compress

    def flush(self) -> bytes:
        return self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Brotli:
    def __init__(self, level: int) -> None:
        import brotli

        stream = brotli.Compressor(quality=level, lgwin=_WINDOW_BITS)
        self.write: Callable[[bytes], bytes] = stream.process
        self.flush: Callable[[], bytes] = stream.flush
        self.finish: Callable[[], bytes] = stream.finish


class _Zstd:
    def __init__(self, level: int) -> None:
        import zstandard

        self._flush_block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        self._level = level
        self._context = _idle[level].pop() if _idle[level] else _zstd_context(level)
        self._stream = self._context.compressobj()
        self.write: Callable[[bytes], bytes] = self._stream.compress

    def flush(self) -> bytes:
        return self._stream.flush(self._flush_block)

    def finish(self) -> bytes:
        rest: bytes = self._stream.flush()
        if len(_idle[self._level]) < COMPRESSORS_KEPT:
            _idle[self._level].append(self._context)
        return rest


def _zstd_context(level: int) -> Any:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=_WINDOW_BITS)
    return zstandard.ZstdCompressor(compression_params=parameters)


_idle: defaultdict[int, list[Any]] = defaultdict(list)
"""Contexts that have finished a stream, by level: one costs more than compressing a page does."""

_WINDOW_BITS = 18
"""Of zstd and Brotli: 256 KB keep a stream's memory below 1.4 MB."""

_COMPRESSORS: dict[bytes, Callable[[int], Compressor]] = {
    b"br": _Brotli,
    b"gzip": _Gzip,
    b"zstd": _Zstd,
}

MODULES = {"zstd": "zstandard", "br": "brotli", "gzip": "zlib"}
"""The library of each coding, in the order of preference."""

_choose = lru_cache(maxsize=ENCODINGS_REMEMBERED)(choose)


class CompressingStage(BodyStage):
    """Compresses a body; `flushes`: every part can be read as soon as it is written."""

    def __init__(
        self, compressor: Compressor, pool: Pool, client: Client, *, flushes: bool
    ) -> None:
        self._compressor = compressor
        self._flushes = flushes
        self._pool: Pool | None = pool
        self._client = client
        pool.take(client)

    def write(self, data: bytes) -> None:
        compressed = self._compressor.write(data)
        if self._flushes:
            compressed += self._compressor.flush()
        if compressed:
            self.sink.write(compressed)

    def end(self, trailers: Sequence[Field]) -> None:
        rest = self._compressor.finish()
        if rest:
            self.sink.write(rest)
        self.sink.end(trailers)

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.give_back(self._client)


class Compress(RouteFilter):
    """Compresses what gains by it and nothing that is, or must not be, transformed.

    `pool`: the streams of all these filters of a worker, which `COMPRESSING_STREAMS` bounds.
    """

    def __init__(self, settings: config.Compress, offered: Sequence[bytes], pool: Pool) -> None:
        """`offered`: the codings that are installed, the preferred one first."""
        self._pool = pool
        self._offered = tuple(offered)
        self._levels = {
            b"br": settings.brotli_level,
            b"gzip": settings.gzip_level,
            b"zstd": settings.zstd_level,
        }
        types = [name.lower().encode() for name in settings.types]
        self._types = frozenset(name for name in types if not name.endswith(b"*"))
        self._prefixes = tuple(name[:-1] for name in types if name.endswith(b"*"))
        self._min_size = settings.min_size
        self._secrets = frozenset(name.lower().encode() for name in settings.except_with)

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        if response.status == 304:
            return _not_modified(response, exchange.request)
        # What is only for one range, or has no content, stays as it is: 206, 204.
        if response.status in _AS_IT_IS:
            return response
        values: dict[bytes, bytes] = {}
        for name, value in response.fields:
            if name in _DECISIVE:
                values[name] = values[name] + b", " + value if name in values else value
        media_type = values.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if not media_type or not self._is_compressible(media_type, values):
            return response
        request = exchange.request
        if self._secrets and any(name in self._secrets for name, _ in request.fields):
            return response
        fields = with_vary(response.fields, b"accept-encoding")
        coding = _choose(accept_encoding(request.fields), self._offered)
        if coding is None or not self._pool.may_take(exchange.client.share):
            return Response(response.status, fields, response.version)
        if response_has_body(request.method, response.status):
            flushes = b"content-length" not in values
            compressor = _COMPRESSORS[coding](self._levels[coding])
            stage = CompressingStage(compressor, self._pool, exchange.client.share, flushes=flushes)
            exchange.transform_response(stage)
        return Response(response.status, _encoded(fields, coding), response.version)

    def _is_compressible(self, media_type: bytes, values: dict[bytes, bytes]) -> bool:
        if media_type not in self._types and not media_type.startswith(self._prefixes):
            return False
        if values.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            return False
        if b"content-range" in values:
            return False
        if b"no-transform" in values.get(b"cache-control", b"").lower():
            # RFC 9111 section 5.2.2.6.
            return False
        length = values.get(b"content-length")
        return length is None or not length.isdigit() or int(length) >= self._min_size


_AS_IT_IS = frozenset((204, 205, 206, 416))
_DECISIVE = frozenset(
    (b"cache-control", b"content-encoding", b"content-length", b"content-range", b"content-type")
)
_CHANGED = frozenset(
    (
        b"accept-ranges", b"content-digest", b"content-encoding", b"content-length", b"content-md5",
        b"etag",
    )
)  # fmt: skip


def _not_modified(response: Response, request: Request) -> Response:
    """RFC 9110 section 15.4.5: it has the validator of the 200 (OK) that the client has, or caches
    would take what is compressed for equal to the original in every octet."""
    known = b",".join(value for name, value in request.fields if name == b"if-none-match")
    fields = [
        (name, b"W/" + value) if name == b"etag" and b"W/" + value in known else (name, value)
        for name, value in response.fields
    ]
    if fields == response.fields:
        return response
    return Response(304, with_vary(fields, b"accept-encoding"), response.version)


def _encoded(fields: Fields, coding: bytes) -> Fields:
    """The fields of the compressed response.

    RFC 9530 section 2: the digest of the content is that of what is sent, and no longer true.
    RFC 9110 section 8.8.1: it is equivalent to the original and not equal to it in every octet, so
    its validator is weak; ranges of it cannot be requested.
    """
    kept = [line for line in fields if line[0] not in _CHANGED]
    for name, value in fields:
        if name == b"etag":
            kept.append((name, value if value.startswith(b"W/") else b"W/" + value))
    kept.append((b"content-encoding", coding))
    return kept


def build(given: config.Compress, where: str, resources: Resources) -> Iterator[RouteFilter]:
    """Raises UnusableError if the library of a chosen coding is not installed."""
    wanted = given.encodings
    installed = [name for name in wanted or MODULES if find_spec(MODULES[name]) is not None]
    if wanted is not None and len(installed) < len(wanted):
        raise UnusableError(f"{where}.encodings", "requires `pip install 'quicedge[compression]'`")
    yield Compress(given, [name.encode() for name in installed], resources.compressing)
