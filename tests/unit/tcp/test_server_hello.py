"""What OpenSSL's flights say of the key exchange, and lists of groups that it is given."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
from OpenSSL import SSL
from OpenSSL._util import lib

from quicedge.config.groups import ALL_GROUPS, HYBRIDS
from quicedge.quic.tls import CertificateStore
from quicedge.tcp import server_hello
from quicedge.tcp.openssl import UnsupportedError, known_groups, set_groups
from quicedge.tcp.server_hello import KeyExchange, key_exchange
from quicedge.tcp.tls import ServerContexts, TlsError
from tests.support.certs import make_certificate

CURVES = [name for name in ALL_GROUPS if name not in HYBRIDS]


def client_context(
    group: str | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    if group is not None:
        context.set_ecdh_curve({"x25519": "X25519", "secp256r1": "prime256v1"}.get(group, group))
    return context


class Ends:
    """A client and a server in memory; flights are the server's."""

    def __init__(
        self,
        client: ssl.SSLContext,
        server: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
    ) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(to_client, to_server, session=session)
        answers = ssl.MemoryBIO()
        self.server = server.wrap_bio(to_server, answers, server_side=True)
        self.flights = []
        for _ in range(3):
            with suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            with suppress(ssl.SSLWantReadError):
                self.server.do_handshake()
            flight = answers.read()
            to_client.write(flight)
            if flight:
                self.flights.append(flight)
        with suppress(ssl.SSLWantReadError):
            self.client.read(1)


def server_context(groups: list[str] | None = None) -> ssl.SSLContext:
    store = CertificateStore([make_certificate("localhost", kind="rsa")])
    return ServerContexts(store, ["http/1.1"], groups=groups).default


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("group", ["x25519", "secp256r1", "secp384r1", "secp521r1"])
def test_the_group_of_a_handshake(group: str, version: ssl.TLSVersion) -> None:
    ends = Ends(client_context(group, version=version), server_context())
    assert key_exchange(ends.flights[0]) == KeyExchange(group, False)


def test_a_hello_retry_request_and_what_follows() -> None:
    ends = Ends(client_context(), server_context(["secp384r1"]))
    assert [key_exchange(flight) for flight in ends.flights[:2]] == [
        KeyExchange("secp384r1", True),
        KeyExchange("secp384r1", False),
    ]


def test_a_resumed_session_of_tls_1_2_exchanges_no_key() -> None:
    client = client_context(version=ssl.TLSVersion.TLSv1_2)
    server = server_context()
    first = Ends(client, server)
    again = Ends(client, server, first.client.session)
    assert again.client.session_reused
    assert key_exchange(again.flights[0]) == KeyExchange(None, False)


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_flight_that_is_cut_short_or_changed_raises_nothing(cut: int) -> None:
    (flight, *_) = Ends(client_context("x25519"), server_context()).flights
    key_exchange(flight[:cut])
    key_exchange(flight[:cut] + b"\xff" * (len(flight) - cut))
    assert key_exchange(b"\x15\3\3\0\2\2\x28") == KeyExchange(None, False)


@pytest.mark.parametrize("group", CURVES)
def test_a_context_exchanges_keys_in_its_groups_alone(group: str) -> None:
    ends = Ends(client_context(), server_context([group]))
    assert key_exchange(ends.flights[0]).group == group
    other = "secp256r1" if group != "secp256r1" else "secp384r1"
    with pytest.raises(ssl.SSLError):
        Ends(client_context(other), server_context([group]))


def test_hybrids_are_left_out_where_openssl_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (3, 0, 0, 19, 0))
    assert known_groups(ALL_GROUPS) == CURVES
    with pytest.raises(UnsupportedError, match="has none of"):
        set_groups(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), sorted(HYBRIDS))
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (3, 5, 0, 0, 0))
    assert known_groups(ALL_GROUPS) == [*ALL_GROUPS]


def test_groups_that_cannot_be_set_are_a_fault_of_their_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise UnsupportedError("out of reach")

    monkeypatch.setattr("quicedge.tcp.tls.set_groups", refuse)
    with pytest.raises(TlsError, match="out of reach") as error:
        server_context(["x25519"])
    assert error.value.key == "tls.groups"


def test_a_reload_with_other_groups_makes_new_contexts() -> None:
    store = CertificateStore([make_certificate("localhost")])
    running = ServerContexts(store, [], groups=["x25519"])
    assert ServerContexts(store, [], None, running, groups=["x25519"]).default is running.default
    again = ServerContexts(store, [], None, running, groups=["secp256r1"])
    assert again.default is not running.default


@pytest.mark.parametrize("group", ["x25519", "secp256r1", "secp384r1", "secp521r1"])
def test_the_usual_server_hello_is_read_at_a_glance(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each handshake pays for it, so that it must not go through all extensions."""
    flight = Ends(client_context(group), server_context(CURVES)).flights[0]
    whole = server_hello._read(flight)
    monkeypatch.delattr(server_hello, "_read")
    assert key_exchange(flight) == whole
    assert whole.group is not None


def test_all_groups_have_names_that_an_openssl_with_hybrids_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of `cryptography`, whatever Python is linked with."""
    given = []

    class Library:
        def SSL_CTX_ctrl(self, _: int, command: int, argument: int, names: bytes) -> int:
            assert (command, argument) == (92, 0)
            given.append(names)
            return int(lib.SSL_CTX_set1_curves_list(SSL.Context(SSL.TLS_METHOD)._context, names))

    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (3, 5, 0, 0, 0))
    monkeypatch.setattr("quicedge.tcp.openssl._library", Library)
    monkeypatch.setattr("quicedge.tcp.openssl._pointer", lambda *_: 0)
    set_groups(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ALL_GROUPS)
    assert given[0].startswith(b"X25519MLKEM768:SecP256r1MLKEM768:X25519:")
