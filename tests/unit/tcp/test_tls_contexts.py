"""The TLS contexts of a certificate store, while another store is prepared."""

from __future__ import annotations

import ssl

from quicedge.quic.tls import CertificateStore
from quicedge.tcp.tls import ServerContexts, ServerSide
from tests.support.certs import make_certificate

ALPN = ["http/1.1"]


def chosen(contexts: ServerContexts, name: str) -> ServerSide:
    """The server's side of a handshake after a ClientHello for a name."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context = ssl.create_default_context()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = contexts.wrap(to_server, to_client)
    for side in (client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return server


def test_contexts_that_are_built_but_dropped_leave_the_choice_of_the_running_ones() -> None:
    shared, other = make_certificate("a.test"), make_certificate("b.test")
    running_store = CertificateStore([shared])
    running = ServerContexts(running_store, ALPN)
    running.activate()
    proposed = ServerContexts(CertificateStore([shared, other]), ALPN, None, running)
    assert chosen(running, "b.test").certificate is shared
    proposed.activate()
    assert chosen(proposed, "b.test").certificate is other
