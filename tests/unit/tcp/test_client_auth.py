"""Clients' certificates on TCP: what OpenSSL begins with, and what no ticket gets around."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import weakref

import pytest

from quicedge.client_auth.material import ClientAuthPem
from quicedge.client_auth.rules import ClientAuth
from quicedge.config.schema import ClientAuthMode
from quicedge.quic.tls import CertificateStore
from quicedge.tcp.client_hello import asked_name, first_message
from quicedge.tcp.openssl import SharedTickets
from quicedge.tcp.ticket_keys import HostKeys
from quicedge.tcp.tls import ServerContexts, ServerSide, identity_of
from tests.support.certs import make_certificate
from tests.support.clientpki import authority
from tests.unit.tcp.test_arrivals import front, until

ROOT = authority("root")
STORE = CertificateStore([make_certificate("open.test", "secret.test"), make_certificate("b.test")])
ENTRY = ClientAuthPem(hosts=["secret.test"], mode=ClientAuthMode.REQUIRE, ca=ROOT.pem)


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def contexts(entry: ClientAuthPem = ENTRY, *, request: bool = False) -> ServerContexts:
    if request:
        entry = ClientAuthPem(hosts=entry.hosts, mode=ClientAuthMode.REQUEST, ca=entry.ca)
    tickets = SharedTickets(HostKeys(b"s" * 32, lambda: 0.0))
    made = ServerContexts(STORE, ["h2"], tickets=tickets, client_auth=ClientAuth([entry]))
    made.activate()
    return made


def shake_hands(
    made: ServerContexts,
    name: str | None,
    context: ssl.SSLContext,
    session: ssl.SSLSession | None = None,
    seen: str | None = None,
) -> tuple[ssl.SSLObject, ServerSide]:
    """Both ends; `seen`: the name that we read in place of the client's."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = to_server.read()
    to_server.write(hello)
    if seen is not None:
        assert name is not None
        hello = hello.replace(name.encode(), seen.encode())
    server = made.wrap(to_server, to_client, hello)
    for side in (server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    try:
        client.read(1)
    except ssl.SSLWantReadError:
        pass
    return client, server


def test_hosts_without_a_rule_ask_nobody() -> None:
    for name in ("open.test", "b.test", None):
        _, server = shake_hands(contexts(), name, client_context())
        assert identity_of(server) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_of_a_host_without_a_rule_does_not_resume_where_there_is_one(
    version: ssl.TLSVersion,
) -> None:
    made, context = contexts(), client_context()
    context.maximum_version = version
    session = shake_hands(made, "open.test", context)[0].session
    assert shake_hands(made, "open.test", context, session)[1].session_reused
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(made, "secret.test", context, session)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_host_with_a_rule_resumes_nothing(version: ssl.TLSVersion) -> None:
    entry = ClientAuthPem(hosts=["secret.test"], mode=ClientAuthMode.REQUEST, ca=ROOT.pem)
    made, context = contexts(entry), client_context()
    context.maximum_version = version
    client, server = shake_hands(made, "secret.test", context)
    identity = identity_of(server)
    assert identity is not None
    assert identity.certificate is None
    assert client.session is None or not client.session.has_ticket
    assert not shake_hands(made, "secret.test", context, client.session)[1].session_reused


@pytest.mark.parametrize(("asked", "seen"), [("secret.test", "public.test"), ("b.test", "c.test")])
def test_a_name_that_openssl_reads_otherwise_gets_nobody_in(asked: str, seen: str) -> None:
    entry = ClientAuthPem(hosts=["secret.test", "c.test"], mode=ENTRY.mode, ca=ROOT.pem)
    with pytest.raises(ssl.SSLError):
        shake_hands(contexts(entry), asked, client_context(), seen=seen)


def test_contexts_that_were_never_used_leave_nothing_behind() -> None:
    made = ServerContexts(STORE, ["h2"], client_auth=ClientAuth([ENTRY]))
    gone = weakref.ref(made)
    gc.disable()
    try:
        del made
        assert gone() is None
    finally:
        gc.enable()


def test_contexts_share_authorities_which_may_be_large() -> None:
    made = contexts()
    assert made.client_auth is not None
    (rule,) = made.client_auth.rules
    before = made._authorities[rule]
    again = ServerContexts(STORE, ["h2"], None, made, client_auth=made.client_auth)
    again.activate()
    (context,) = again._authenticating.values()
    assert context is not before
    assert again._authorities == {rule: before}
    assert context.get_ca_certs() == before.get_ca_certs() != []
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(again, "secret.test", client_context())


def test_the_server_name_is_read_from_a_whole_client_hello() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    for name in ("a.test", "sub.domain.example", None):
        client = client_context().wrap_bio(incoming, outgoing, server_hostname=name)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        assert asked_name(first_message(hello)) == name
        assert not first_message(hello[:-1])
    assert asked_name(b"") is None


async def test_a_client_hello_in_pieces_is_awaited_and_a_silent_one_is_cut_off() -> None:
    async with front() as one:
        one.listener.contexts = contexts(request=True)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context().wrap_bio(incoming, outgoing, server_hostname="secret.test")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        silent_reader, silent = await one.dial()
        silent.write(hello[:100])
        reader, writer = await one.dial()
        for octet in hello:
            writer.write(bytes([octet]))
            await asyncio.sleep(0)
        while not one.sessions:
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            writer.write(outgoing.read())
            await until(lambda: one.sessions or not incoming.pending)
            if client.cipher() is not None:
                await until(lambda: one.sessions)
        identity = one.sessions[0].connection.identity
        assert identity is not None
        assert identity.server_name == "secret.test"
        one.now += 11
        one.arrivals.check(one.now)
        assert await silent_reader.read() == b""
        assert one.arrivals.counters["failed_timeout"] == 1


async def test_a_client_hello_without_end_is_not_kept() -> None:
    async with front() as one:
        one.listener.contexts = contexts()
        _, writer = await one.dial()
        # A message of 16 MB, announced in records of 16 KB.
        record = b"\x16\x03\x01\x40\x00"
        writer.write(record + b"\x01\xff\xff\xff" + bytes(0x4000 - 4))
        for _ in range(5):
            writer.write(record + bytes(0x4000))
        await until(lambda: one.arrivals.counters["failed_protocol"] == 1)
        writer.close()
