"""What is asked of every application, and of both servers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_FORM = b"".join(
    (
        b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\nAda\r\n',
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n',
        b"content-type: application/octet-stream\r\n\r\n" + b"\0" * 100_000 + b"\r\n--b--\r\n",
    )
)


class Exchange(NamedTuple):
    """A request."""

    method: str
    target: str
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


HTTP: dict[str, list[Exchange]] = {
    "lifespan": [Exchange("GET", "/hello")],
    "HEAD": [Exchange("HEAD", "/hello")],
    "path and query": [Exchange("GET", "/query/a%20b%C3%BC?q=1&q=%26")],
    "upload of a form": [
        Exchange("POST", "/form", {"content-type": "multipart/form-data; boundary=b"}, _FORM)
    ],
    "upload of 3 MB": [Exchange("PUT", "/count", {}, bytes(3_000_000))],
    "streamed response": [Exchange("GET", "/stream")],
    "1 MB response": [Exchange("GET", "/large")],
    "compression": [Exchange("GET", "/large", {"accept-encoding": "gzip"})],
    "cookies": [Exchange("GET", "/cookie", {"cookie": "seen=today; x=y"})],
    "redirect": [Exchange("GET", "/redirect")],
    "no content": [Exchange("DELETE", "/nothing")],
    "error of the application": [Exchange("GET", "/fail"), Exchange("GET", "/absent")],
    "wrong method": [Exchange("PATCH", "/hello", {}, b"x")],
    "exception": [Exchange("GET", "/crash"), Exchange("GET", "/hello")],
    "work after the response": [Exchange("GET", "/late"), Exchange("GET", "/finished")],
}
"""By what they show."""

WEBSOCKET = "WebSocket"
