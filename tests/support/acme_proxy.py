"""A proxy before Pebble, whose answers a test may replace: outages, rate limits, revocations."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from quicedge.config import devcerts
from tests.support.pebble import Pebble


@dataclass
class Fault:
    """An answer in place of Pebble's."""

    status: int
    problem: str = "serverInternal"
    detail: str = "out of order"
    retry_after: str | None = None
    times: int = 1_000_000
    """How many requests it is the answer to."""

    def body(self) -> bytes:
        kind = f"urn:ietf:params:acme:error:{self.problem}"
        return json.dumps({"type": kind, "detail": self.detail}).encode()


@dataclass
class Proxy:
    directory: str
    faults: dict[str, Fault] = field(default_factory=dict)
    """By the beginning of the path."""
    rewrite: Callable[[str, dict[str, Any]], None] | None = None
    """May change the JSON of an answer."""
    seen: list[str] = field(default_factory=list)
    """Paths that were asked for."""

    def fault(self, path: str) -> Fault | None:
        for prefix, fault in self.faults.items():
            if path.startswith(prefix) and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def count(self, prefix: str) -> int:
        return sum(path.startswith(prefix) for path in self.seen)


@contextmanager
def acme_proxy(pebble: Pebble) -> Iterator[Proxy]:
    """Passes all requests on, with the proxy's own URL in the objects."""
    files = devcerts.ensure(pebble.folder / "certs", ("localhost", "127.0.0.1"))
    target = urlsplit(pebble.directory)
    upstream = ssl.create_default_context(cafile=str(pebble.ca))
    proxy = Proxy("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            proxy.seen.append(self.path)
            size = int(self.headers.get("content-length") or 0)
            content = self.rfile.read(size)
            fault = proxy.fault(self.path)
            if fault is not None:
                extra = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
                self._answer(fault.status, fault.body(), "application/problem+json", extra)
                return
            connection = http.client.HTTPSConnection(
                target.hostname or "", target.port, context=upstream, timeout=20
            )
            headers = dict(self.headers.items())
            connection.request(self.command, self.path, content, headers)
            answer = connection.getresponse()
            body = answer.read()
            kind = answer.headers.get("content-type", "")
            if proxy.rewrite is not None and "json" in kind:
                found = json.loads(body)
                proxy.rewrite(self.path, found)
                body = json.dumps(found).encode()
            passed = ("replay-nonce", "location", "link", "retry-after")
            extra = {k: v for k, v in answer.headers.items() if k.lower() in passed}
            self._answer(answer.status, body, kind, extra)
            connection.close()

        do_POST = do_HEAD = do_GET

        def _answer(self, status: int, body: bytes, kind: str, extra: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    proxy.directory = f"https://127.0.0.1:{server.server_address[1]}/dir"
    running = threading.Thread(target=server.serve_forever, daemon=True)
    running.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        running.join()
