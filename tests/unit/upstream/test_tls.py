"""TLS to origins: verification, names, ALPN."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from quicedge.upstream.group import Upstream
from tests.support.certs import write_certificate
from tests.support.origins import (
    OK,
    config_of,
    fetch,
    h2_says,
    origin,
    request,
    says,
    send,
    upstream,
)


def server_context(directory: Path, *names: str, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A server's context with a self-signed certificate, `directory`/cert.pem."""
    cert, key = write_certificate(directory, *names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@pytest.fixture
def ca(tmp_path: Path) -> str:
    return str(tmp_path / "cert.pem")


async def test_auto_takes_h2_when_offered(tmp_path: Path, ca: str) -> None:
    tls = server_context(tmp_path, "localhost", alpn=("h2", "http/1.1"))
    async with origin(h2_says(), tls=tls) as server, upstream(server, tls_ca=ca) as group:
        sent = [send(group, request()) for _ in range(5)]
        for stream, recorder in sent:
            await recorder.over()
            assert (recorder.status, bytes(recorder.body)) == (200, b"hello")
            assert stream.connect_seconds > 0
        assert server.connections == 1


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
async def test_auto_falls_back_to_http_1(tmp_path: Path, ca: str, alpn: tuple[str, ...]) -> None:
    tls = server_context(tmp_path, "localhost", alpn=alpn)
    async with origin(says(OK), tls=tls) as server, upstream(server, tls_ca=ca) as group:
        sent = [send(group, request())[1] for _ in range(5)]
        for recorder in sent:
            assert bytes((await recorder.over()).body) == b"ok"
        assert bytes((await fetch(group, request())).body) == b"ok"
        assert server.connections <= 5


async def test_http_1_is_asked_for_when_configured(tmp_path: Path, ca: str) -> None:
    tls = server_context(tmp_path, "localhost", alpn=("h2", "http/1.1"))
    options = {"tls_ca": ca, "protocol": "http/1.1"}
    async with origin(says(OK), tls=tls) as server, upstream(server, **options) as group:
        assert bytes((await fetch(group, request())).body) == b"ok"


async def test_h2_needs_alpn(tmp_path: Path, ca: str) -> None:
    tls = server_context(tmp_path, "localhost", alpn=("http/1.1",))
    options = {"tls_ca": ca, "protocol": "h2"}
    async with origin(says(OK), tls=tls) as server, upstream(server, **options) as group:
        recorder = await fetch(group, request())
        assert recorder.kind == "tls"


async def test_an_unknown_issuer_is_refused_and_reported(tmp_path: Path) -> None:
    tls = server_context(tmp_path, "localhost")
    async with origin(says(OK), tls=tls) as server, upstream(server) as group:
        recorder = await fetch(group, request())
        assert recorder.kind == "tls"
        assert "self-signed certificate" in str(recorder.error)


async def test_another_name_is_refused_unless_configured(tmp_path: Path, ca: str) -> None:
    tls = server_context(tmp_path, "origin.internal")
    async with origin(says(OK), tls=tls) as server:
        async with upstream(server, tls_ca=ca) as group:
            recorder = await fetch(group, request())
            assert recorder.kind == "tls"
            assert "localhost" in str(recorder.error)
        async with upstream(server, tls_ca=ca, tls_server_name="origin.internal") as group:
            assert (await fetch(group, request())).status == 200


async def test_verification_can_be_switched_off(tmp_path: Path) -> None:
    tls = server_context(tmp_path, "origin.internal")
    async with origin(says(OK), tls=tls) as server, upstream(server, tls_verify=False) as group:
        assert (await fetch(group, request())).status == 200


async def test_a_certificate_error_goes_to_the_next_server(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    trusted = server_context(good, "localhost")
    other = server_context(bad, "localhost")
    options = {"tls_ca": str(good / "cert.pem")}
    async with (
        origin(says(OK), tls=trusted) as one,
        origin(says(OK), tls=other) as two,
        upstream(one, two, **options) as group,
    ):
        for _ in range(4):
            assert (await fetch(group, request())).status == 200


async def test_plain_text_where_tls_is_expected() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with origin(script) as server:
        url = server.url.replace("http://", "https://")
        async with upstream(url) as group:
            assert (await fetch(group, request())).kind in ("tls", "connect")


async def test_a_handshake_that_never_ends_is_a_connect_timeout() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with origin(script) as server:
        url = server.url.replace("http://", "https://")
        async with upstream(url, connect_timeout=0.1) as group:
            assert (await fetch(group, request())).kind == "connect_timeout"


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_is_none_names_its_key(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"upstreams\.shop\.tls_ca"):
        Upstream("shop", config_of("https://localhost", tls_ca=str(path)))
