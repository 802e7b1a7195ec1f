"""HelloRetryRequest: a client whose key shares are all of groups that we lack (RFC 8446 4.1.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from tests.support.world import World, is_connected

P521 = 0x0019
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
Change = Callable[[tls.ClientHello], None]


class Retrying:
    """What a stock client lacks: it sends a share of P-521 or none, and answers the request."""

    def __init__(self, groups: list[int], change: Change, shares: bool) -> None:
        self.groups = groups
        self.shares = shares
        self.change = change
        self.requests: list[int] = []

    def hello(self, context: Any, output: Buffer, shares: list[Any], before: bytes) -> None:
        """Write a ClientHello behind a transcript."""
        ticket = context.session_ticket
        hello = tls.ClientHello(
            random=context.client_random,
            legacy_session_id=context.legacy_session_id,
            cipher_suites=[int(suite) for suite in context._cipher_suites],
            legacy_compression_methods=context._legacy_compression_methods,
            alpn_protocols=context._alpn_protocols,
            key_share=shares,
            psk_key_exchange_modes=context._psk_key_exchange_modes,
            server_name=context._server_name,
            signature_algorithms=context._signature_algorithms,
            supported_groups=self.groups,
            supported_versions=context._supported_versions,
            other_extensions=context.handshake_extensions,
        )
        if before:
            self.change(hello)
        if ticket is not None:
            hello.pre_shared_key = tls.OfferedPsks(
                identities=[(ticket.ticket, ticket.obfuscated_age)], binders=[bytes(32)]
            )
        message = Buffer(capacity=4000)
        tls.push_client_hello(message, hello)
        data = message.data
        if ticket is not None:
            schedule = tls.KeySchedule(ticket.cipher_suite)
            schedule.extract(ticket.resumption_secret)
            key = schedule.derive_secret(b"res binder")
            schedule.update_hash(before + data[:-35])
            data = data[:-32] + schedule.finished_verify_data(key)
            schedule.update_hash(data[-35:])
            context._key_schedule_psk = schedule
        context._key_schedule_proxy = tls.KeyScheduleProxy(context._cipher_suites)
        context._key_schedule_proxy.extract(None)
        context._key_schedule_proxy.update_hash(before + data)
        output.push_bytes(data)
        self.sent = data

    @contextmanager
    def patched(self) -> Iterator[None]:
        handle = tls.Context._client_handle_hello

        def send(context: Any, output: Buffer) -> None:
            point = ec.generate_private_key(ec.SECP521R1()).public_key()
            self.hello(context, output, [(P521, _encoded(point))] if self.shares else [], b"")
            context._set_state(tls.State.CLIENT_EXPECT_SERVER_HELLO)

        def receive(context: Any, message: Buffer, output: Buffer) -> None:
            data = message.data_slice(0, message.capacity)
            if data[6:38] != RETRY_RANDOM:
                handle(context, message, output)
                return
            message.seek(message.capacity)
            group = int.from_bytes(data[-2:], "big")
            self.requests.append(group)
            digest = hashlib.sha256(self.sent).digest()
            context._x25519_private_key = x25519.X25519PrivateKey.generate()
            share = tls.encode_public_key(context._x25519_private_key.public_key())
            self.hello(context, output, [share], b"\xfe\0\0\x20" + digest + data)

        with (
            patch.object(tls.Context, "_client_send_hello", send),
            patch.object(tls.Context, "_client_handle_hello", receive),
        ):
            yield


def _encoded(point: ec.EllipticCurvePublicKey) -> bytes:
    numbers = point.public_numbers()
    return b"\4" + numbers.x.to_bytes(66, "big") + numbers.y.to_bytes(66, "big")


def visit(
    world: World,
    groups: list[int],
    change: Change = lambda hello: None,
    shares: bool = True,
    **options: Any,
) -> tuple[QuicConnection, Retrying]:
    peer = Retrying(groups, change, shares)
    options.setdefault("cipher_suites", [tls.CipherSuite.AES_128_GCM_SHA256])
    with peer.patched():
        client = world.client(**options)
        world.talk(client)
    return client, peer


@pytest.mark.parametrize("shares", [True, False], ids=["another group's", "none"])
def test_the_client_is_asked_for_a_share_of_a_common_group(shares: bool) -> None:
    world = World()
    client, peer = visit(world, [P521, tls.Group.SECP384R1, tls.Group.X25519], shares=shares)
    assert is_connected(client)
    assert peer.requests == [tls.Group.X25519]
    (connection,) = world.endpoint.connections
    assert connection.handshake.group == "x25519"


def test_a_session_is_resumed_across_the_request() -> None:
    world = World()
    first = world.client(cipher_suites=[tls.CipherSuite.AES_128_GCM_SHA256])
    world.talk(first)
    ticket = first.last_ticket  # type: ignore[attr-defined]
    client, peer = visit(world, [P521, tls.Group.X25519], session_ticket=ticket)
    assert is_connected(client)
    assert client.tls.session_resumed
    assert len(peer.requests) == 1


def test_without_a_common_group_the_handshake_fails() -> None:
    client, peer = visit(World(), [P521])
    assert not peer.requests
    assert client._close_event is not None
    assert client._close_event.error_code == 0x100 + tls.AlertDescription.handshake_failure


def _same_group_again(hello: tls.ClientHello) -> None:
    point = ec.generate_private_key(ec.SECP521R1()).public_key()
    hello.key_share = [(P521, _encoded(point))]


def _two_shares(hello: tls.ClientHello) -> None:
    assert hello.key_share
    hello.key_share = [*hello.key_share, *hello.key_share]


def _early_data(hello: tls.ClientHello) -> None:
    hello.early_data = True


@pytest.mark.parametrize("change", [_same_group_again, _two_shares, _early_data])
def test_an_answer_that_is_not_what_was_asked_for_aborts_the_handshake(change: Change) -> None:
    client, peer = visit(World(), [P521, tls.Group.X25519], change)
    assert len(peer.requests) == 1, "it is asked once"
    assert client._close_event is not None
    assert client._close_event.error_code == 0x100 + tls.AlertDescription.illegal_parameter
