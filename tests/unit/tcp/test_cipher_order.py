"""Which of the ciphers that both sides have a connection on TCP gets."""

from __future__ import annotations

import ctypes
import ssl
from contextlib import suppress

import pytest

from quicedge.quic.tls import CertificateStore
from quicedge.tcp import openssl
from quicedge.tcp.tls import ServerContexts
from tests.support.certs import make_certificate

AES_128, AES_256, CHACHA20 = "AES_128_GCM", "AES_256_GCM", "CHACHA20_POLY1305"
TLS_1_2 = {AES_128: "ECDHE+AES128+AESGCM", AES_256: "ECDHE+AES256+AESGCM", CHACHA20: "CHACHA20"}
TLS_1_3 = {
    AES_128: "TLS_AES_128_GCM_SHA256",
    AES_256: "TLS_AES_256_GCM_SHA384",
    CHACHA20: "TLS_CHACHA20_POLY1305_SHA256",
}


def client(offered: list[str], version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    context.set_ciphers(":".join(TLS_1_2[name] for name in offered))
    suites = ":".join(TLS_1_3[name] for name in offered).encode()
    pointer = ctypes.c_void_p.from_address(openssl._place(context)).value
    assert openssl._library().SSL_CTX_set_ciphersuites(pointer, suites) == 1
    return context


def chosen(offered: list[str], version: ssl.TLSVersion) -> str:
    """The cipher that a client gets which offers these, the best first."""
    server = ServerContexts(CertificateStore([make_certificate("localhost")]), ["http/1.1"])
    server.activate()
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client(offered, version).wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap(to_server, to_client),
    )
    for side in sides * 2:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    cipher = sides[0].cipher()
    assert cipher is not None
    return cipher[0].replace("-", "_").replace("AES128", "AES_128").replace("AES256", "AES_256")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_aes_128_is_preferred_unless_the_client_has_no_aes_in_hardware(
    version: ssl.TLSVersion,
) -> None:
    assert AES_128 in chosen([AES_256, CHACHA20, AES_128], version)
    assert AES_128 in chosen([AES_128, AES_256, CHACHA20], version)
    assert CHACHA20 in chosen([CHACHA20, AES_256, AES_128], version)
    assert AES_256 in chosen([AES_256, CHACHA20], version)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_clients_order_counts_where_ours_cannot_be_set(
    version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise openssl.UnsupportedError("out of reach")

    monkeypatch.setattr("quicedge.tcp.tls.prefer_fast_ciphers", refuse)
    for first in (AES_128, AES_256, CHACHA20):
        others = [name for name in (AES_128, AES_256, CHACHA20) if name != first]
        assert first in chosen([first, *others], version)
