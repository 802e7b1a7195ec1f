"""TLS-ALPN-01 (RFC 8737), names without a certificate, and clients that wait for one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from quicedge.acme.challenge import self_signed
from quicedge.quic.tls import CertificateStore, ServerCertificate
from quicedge.tcp.tls import ACME_TLS, ServerContexts, Validations
from tests.support.certs import make_certificate
from tests.unit.tcp.test_arrivals import Front, front, until

NAME = "a.example.com"
NOT_KNOWN = "TLSV1_UNRECOGNIZED_NAME"


class Outcome:
    """What a client gets from a handshake in memory."""

    def __init__(self, contexts: ServerContexts, name: str | None, alpn: list[str]) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        client = context.wrap_bio(to_client, to_server, server_hostname=name)
        hello = bytearray()
        self.error = ""
        server = None
        for _ in range(3):
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.error = error.reason or ""
                return
            sent = to_server.read()
            if server is None:
                hello += sent
                incoming, outgoing = ssl.MemoryBIO(), to_client
                server = contexts.wrap(incoming, outgoing, hello)
                server.hello = hello
            incoming.write(sent)
            try:
                server.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLError):
                continue
        self.alpn = client.selected_alpn_protocol()
        self.der = client.getpeercert(binary_form=True)


def der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())


@pytest.fixture
def served() -> ServerCertificate:
    return make_certificate(NAME)


def contexts_of(store: CertificateStore, validations: Validations | None = None) -> ServerContexts:
    made = ServerContexts(store, ["h2", "http/1.1"], validations=validations)
    made.activate()
    return made


def test_only_who_offers_acme_tls_alone_gets_the_validation_certificate(
    served: ServerCertificate,
) -> None:
    validations = Validations()
    contexts = contexts_of(CertificateStore([served]), validations)
    proof = self_signed(NAME)
    validations.replace({NAME: proof})
    found = Outcome(contexts, NAME, [ACME_TLS])
    assert (found.alpn, found.der) == (ACME_TLS, der(proof.chain_pem))
    for alpn in (["h2"], [], [ACME_TLS, "h2"], ["h2", ACME_TLS]):
        assert Outcome(contexts, NAME, alpn).der == der(served.chain_pem), alpn
    assert Outcome(contexts, "b.example.com", [ACME_TLS]).der == der(served.chain_pem)
    validations.replace({})
    assert Outcome(contexts, NAME, [ACME_TLS]).der == der(served.chain_pem)


def test_a_name_is_validated_before_it_has_any_certificate() -> None:
    validations = Validations()
    contexts = contexts_of(CertificateStore([], managed=[]), validations)
    proof = self_signed(NAME)
    validations.replace({NAME: proof})
    assert Outcome(contexts, NAME.upper(), [ACME_TLS]).der == der(proof.chain_pem)
    assert Outcome(contexts, NAME, ["h2"]).error == NOT_KNOWN


def test_without_a_certificate_of_the_operator_other_names_are_refused(
    served: ServerCertificate,
) -> None:
    contexts = contexts_of(CertificateStore([], managed=[served]))
    assert Outcome(contexts, NAME, ["h2"]).der == der(served.chain_pem)
    assert Outcome(contexts, "b.example.com", ["h2"]).error == NOT_KNOWN
    assert Outcome(contexts, None, ["h2"]).error == "TLSV13_ALERT_MISSING_EXTENSION"
    own = make_certificate("own.example.com")
    contexts = contexts_of(CertificateStore([own], managed=[served]))
    assert Outcome(contexts, "b.example.com", ["h2"]).der == der(own.chain_pem)


# --- waiting ------------------------------------------------------------------------------------


@asynccontextmanager
async def empty_front(*, may_come: bool = True) -> AsyncIterator[Front]:
    async with front() as one:
        one.listener.contexts = contexts_of(CertificateStore([], managed=[]))
        one.arrivals.may_come = lambda name: may_come
        yield one


async def connect(one: Front) -> bytes:
    """The certificate that a client gets."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(
        *one.sock.getsockname(), ssl=context, server_hostname=NAME
    )
    one.clients.append(writer)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return found


def waiting(one: Front) -> int:
    return len(one.arrivals._waiting)


async def test_a_client_that_waits_gets_the_certificate_once_it_is_there(
    served: ServerCertificate,
) -> None:
    async with empty_front() as one:
        clients = [asyncio.create_task(connect(one)) for _ in range(3)]
        await until(lambda: waiting(one) == 3)
        one.arrivals.retry()  # other certificates have changed
        assert waiting(one) == 3
        one.listener.contexts = contexts_of(CertificateStore([], managed=[served]))
        one.arrivals.retry()
        assert [await client for client in clients] == [der(served.chain_pem)] * 3
        assert one.arrivals.counters["failed_unknown_name"] == 0


async def test_a_client_whose_name_is_refused_gets_the_alert() -> None:
    async with empty_front() as one:
        client = asyncio.create_task(connect(one))
        await until(lambda: waiting(one))
        one.arrivals.give_up(["other.example.com"])
        assert waiting(one) == 1
        one.arrivals.give_up([NAME])
        with pytest.raises(ssl.SSLError, match=NOT_KNOWN):
            await client
        assert (waiting(one), one.arrivals.counters["failed_unknown_name"]) == (0, 1)


async def test_nobody_waits_longer_than_a_handshake_may_take() -> None:
    async with empty_front() as one:
        client = asyncio.create_task(connect(one))
        await until(lambda: waiting(one))
        one.arrivals.check(one.now + 11)
        with pytest.raises(ssl.SSLError, match=NOT_KNOWN):
            await client
        assert waiting(one) == 0


async def test_clients_beyond_a_number_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicedge.tcp.arrivals.ON_DEMAND_HELD", 1)
    async with empty_front() as one:
        first = asyncio.create_task(connect(one))
        await until(lambda: waiting(one))
        with pytest.raises(ssl.SSLError, match=NOT_KNOWN):
            await connect(one)
        one.arrivals.give_up([NAME])
        with pytest.raises(ssl.SSLError):
            await first


async def test_a_client_that_leaves_is_forgotten() -> None:
    async with empty_front() as one:
        client = asyncio.create_task(connect(one))
        await until(lambda: waiting(one))
        client.cancel()
        await until(lambda: not waiting(one) and not one.connections)


async def test_what_a_waiting_client_sends_on_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quicedge.tcp.transport.ON_DEMAND_HELLO_MAX", 3000)
    hello = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    async with empty_front() as one:
        reader, writer = await one.dial()
        writer.write(hello.read())
        await until(lambda: waiting(one))
        writer.write(b"x" * 5000)
        assert (await reader.read(7))[:1] == b"\x15", "an alert"
        await until(lambda: not waiting(one))
