"""OpenSSL, by pyOpenSSL from `cryptography`, as client over TCP of `python -m interop tls`."""

from __future__ import annotations

import os
import socket
import sys

from OpenSSL import SSL

UNSUPPORTED = 127
CONNECTIONS = {"handshake": 1, "resumption": 2}
REQUEST = b"GET /handshake.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def connect(context: SSL.Context, session: SSL.Session | None) -> SSL.Session | None:
    """Make a request on a connection of its own; returns the session that it may resume."""
    with socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))) as raw:
        raw.settimeout(30)
        raw.setblocking(True)
        connection = SSL.Connection(context, raw)
        connection.set_connect_state()
        connection.set_tlsext_host_name(b"localhost")
        if session is not None:
            connection.set_session(session)
        connection.do_handshake()
        connection.sendall(REQUEST)
        answer = connection.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"{answer[:100]!r}")
        # OpenSSL resumes no session whose connection ended without close_notify.
        session = connection.get_session()
        connection.shutdown()
        return session


def main() -> int:
    testcase = os.environ["TESTCASE"]
    if os.environ["ROLE"] != "client" or testcase not in CONNECTIONS:
        return UNSUPPORTED
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([b"http/1.1"])
    context.load_verify_locations(f"{os.environ['CERTS']}/ca.pem")
    context.set_verify(SSL.VERIFY_PEER)
    session = None
    for _ in range(CONNECTIONS[testcase]):
        session = connect(context, session)
    return 0


if __name__ == "__main__":
    sys.exit(main())
