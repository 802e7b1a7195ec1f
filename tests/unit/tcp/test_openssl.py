"""Session tickets that several contexts, as those of several workers, can open."""

from __future__ import annotations

import ctypes
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from quicedge.config.limits import TICKET_LIFETIME
from quicedge.quic.tls import CertificateStore
from quicedge.tcp import openssl
from quicedge.tcp.openssl import SharedTickets, UnsupportedError, prove
from quicedge.tcp.ticket_keys import FleetTicketKeys, HostKeys, TicketKey, TicketKeys
from quicedge.tcp.tls import ServerContexts, shared_tickets
from tests.support.certs import make_certificate

SECRET = b"\x01" * 32
A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


class Clock:
    def __init__(self) -> None:
        self.now = 5 * TICKET_LIFETIME

    def __call__(self) -> float:
        return self.now


def server(keys: TicketKeys | None, *names: str) -> ServerContexts:
    """What one worker has."""
    return serving(None if keys is None else SharedTickets(keys), *names)


def serving(tickets: SharedTickets | None, *names: str) -> ServerContexts:
    certificates = [make_certificate(name) for name in names or ("localhost",)]
    contexts = ServerContexts(CertificateStore(certificates), ["http/1.1"], tickets=tickets)
    contexts.activate()
    return contexts


class Visitor:
    """A client that keeps its latest session."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.maximum_version = version
        self.session: ssl.SSLSession | None = None

    def resumes(self, contexts: ServerContexts, name: str = "localhost") -> bool:
        """Connect, and whether that resumed the session."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self._context.wrap_bio(
            to_client, to_server, server_hostname=name, session=self.session
        )
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = to_server.read()
        to_server.write(hello)
        end = contexts.wrap(to_server, to_client, hello)
        for step in (end.do_handshake, client.do_handshake) * 3:
            try:
                step()
            except ssl.SSLWantReadError:
                continue
        with pytest.raises(ssl.SSLWantReadError):
            client.read(1)
        self.session = client.session
        assert client.session_reused == end.session_reused
        return bool(client.session_reused)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_of_one_worker_resumes_at_another(version: ssl.TLSVersion) -> None:
    clock, visitor = Clock(), Visitor(version)
    assert not visitor.resumes(server(HostKeys(SECRET, clock)))
    assert visitor.resumes(server(HostKeys(SECRET, clock)))
    assert visitor.resumes(server(HostKeys(SECRET, clock)))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ticket_of_another_host_is_not_opened(version: ssl.TLSVersion) -> None:
    clock, visitor = Clock(), Visitor(version)
    visitor.resumes(server(HostKeys(SECRET, clock)))
    assert not visitor.resumes(server(HostKeys(bytes(32), clock)))


def test_a_session_survives_a_renewed_certificate_and_resumes_for_every_name() -> None:
    keys, visitor = HostKeys(SECRET, Clock()), Visitor()
    visitor.resumes(server(keys, "localhost", "other.test"), "other.test")
    assert visitor.resumes(server(keys, "localhost", "other.test"), "other.test")


def test_tickets_outlive_one_change_of_the_key_and_not_two() -> None:
    clock, visitor = Clock(), Visitor()
    tickets = SharedTickets(HostKeys(SECRET, clock))
    contexts = serving(tickets)
    visitor.resumes(contexts)
    kept = visitor.session
    clock.now += TICKET_LIFETIME
    tickets.refresh()
    assert visitor.resumes(contexts)
    renewed = visitor.session
    clock.now += TICKET_LIFETIME
    tickets.refresh()
    assert visitor.resumes(contexts), "it was renewed with the key of its time"
    for expired in (kept, renewed):
        visitor.session = expired
        assert not visitor.resumes(contexts)
        clock.now += TICKET_LIFETIME
        tickets.refresh()


@pytest.mark.parametrize(
    ("before", "after", "resumed"),
    [([A], [B, A], True), ([A], [A, B], True), ([A], [B, C], False), ([B, A], [A], False)],
)
def test_any_key_of_a_fleet_opens_and_its_first_one_seals(
    before: Sequence[bytes], after: Sequence[bytes], resumed: bool
) -> None:
    visitor = Visitor()
    visitor.resumes(server(FleetTicketKeys(before)))
    assert visitor.resumes(server(FleetTicketKeys(after))) is resumed


def test_keys_may_be_replaced_while_contexts_are_in_use() -> None:
    tickets = SharedTickets(FleetTicketKeys([A]))
    contexts = serving(tickets)
    visitor = Visitor()
    visitor.resumes(contexts)
    tickets.use(FleetTicketKeys([B]))
    assert not visitor.resumes(contexts)
    assert visitor.resumes(server(FleetTicketKeys([C, B])))


class Broken(FleetTicketKeys):
    """Keys that cannot be had when they are needed."""

    def opening(self, name: bytes) -> TicketKey | None:
        raise RuntimeError


def test_a_ticket_that_cannot_be_looked_up_leads_to_a_full_handshake() -> None:
    visitor = Visitor()
    visitor.resumes(server(FleetTicketKeys([A])))
    assert not visitor.resumes(server(Broken([B, A])))


def test_keys_are_neither_those_of_quic_nor_shown() -> None:
    key = HostKeys(SECRET, Clock()).sealing()
    assert len({key.name, key.cipher[:16], key.cipher[16:], key.mac[:16], key.mac[16:]}) == 5
    assert key.cipher.hex() not in repr(key)
    assert key.mac.hex() not in repr(key)


# --- where it is not possible ---------------------------------------------------------------------


def test_a_pointer_that_leads_nowhere_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a Python whose contexts have another layout: the field is no SSL_CTX."""
    tickets = SharedTickets(FleetTicketKeys([A]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for address in (8, 1 << 46, id(context)):
        place = ctypes.c_void_p(address)
        monkeypatch.setattr(openssl, "_place", lambda _, place=place: ctypes.addressof(place))
        with pytest.raises(UnsupportedError, match="no SSL_CTX"):
            tickets.install(context)


def test_a_callback_that_does_not_lead_to_resumption_is_found_out(tmp_path: Path) -> None:
    certificate = make_certificate("localhost")

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        file = tmp_path / "pair.pem"
        file.write_bytes(certificate.chain_pem + b"\n" + certificate.key_pem)
        context.load_cert_chain(file)
        return context

    prove(SharedTickets(FleetTicketKeys([A])), make)
    with pytest.raises(UnsupportedError, match="do not resume"):
        prove(SharedTickets(Broken([A])), make)


def test_where_openssl_is_out_of_reach_each_worker_keeps_its_own_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    openssl._library.cache_clear()
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", (1, 1, 1, 0, 0))
    assert shared_tickets(FleetTicketKeys([A]), make_certificate("localhost")) is None
    contexts = server(None)
    visitor = Visitor()
    visitor.resumes(contexts)
    assert visitor.resumes(contexts)
    assert not visitor.resumes(server(None))


def test_contexts_that_come_and_go_leave_no_dangling_callback() -> None:
    """In a process of its own: the fault would be a crash."""
    program = """
import gc, ssl
from tests.unit.tcp.test_openssl import A, FleetTicketKeys, Visitor, server
for n in range(20):
    contexts = server(FleetTicketKeys([A]), "localhost", "other.test")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    kept = contexts.wrap(incoming, outgoing)
    Visitor().resumes(contexts, "other.test")
    del contexts
    gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
