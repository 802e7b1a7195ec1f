"""HelloRetryRequest: a client whose key shares are all of groups that we lack (RFC 8446 4.1.4)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aioquic import tls
from aioquic.quic.connection import QuicConnection

from quicedge.quic.key_exchange import GROUPS, usable_by_name
from tests.support.tlsclient import NUMBERS, Change, TlsClient, new_share
from tests.support.world import CLIENT, NOW, World, is_connected

ILLEGAL_PARAMETER = 0x100 + tls.AlertDescription.illegal_parameter


def world_with(*groups: str, **rules: object) -> World:
    world = World(**rules)  # type: ignore[arg-type]
    world.endpoint.settings.groups = usable_by_name(groups)
    return world


def visit(
    world: World,
    groups: Sequence[str],
    shares: Sequence[str] | None = None,
    change: Change = lambda hello: None,
    **options: object,
) -> tuple[QuicConnection, TlsClient]:
    options.setdefault("cipher_suites", [tls.CipherSuite.AES_128_GCM_SHA256])
    with TlsClient(groups, shares, change=change).patched() as peer:
        client = world.client(**options)
        world.talk(client)
    return client, peer


@pytest.mark.parametrize("shares", [["secp521r1"], []], ids=["another group's", "none"])
def test_the_client_is_asked_for_a_share_of_a_common_group(shares: list[str]) -> None:
    world = world_with("x25519", "secp384r1")
    client, peer = visit(world, ["secp521r1", "secp384r1", "x25519"], shares)
    assert is_connected(client)
    assert peer.requests == [NUMBERS["x25519"]]
    (connection,) = world.endpoint.connections
    assert connection.handshake.group is GROUPS["x25519"]
    assert connection.handshake.hello_retried


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("suite", list(tls.CipherSuite)[:3])
def test_a_share_of_every_group_can_be_asked_for(group: str, suite: tls.CipherSuite) -> None:
    world = world_with(group)
    first = "secp256r1" if group != "secp256r1" else "x25519"
    client, peer = visit(world, [first, group], cipher_suites=[suite])
    assert is_connected(client)
    assert peer.requests == [NUMBERS[group]]
    (connection,) = world.endpoint.connections
    assert connection.handshake.group is GROUPS[group]


def test_a_hybrid_is_asked_for_rather_than_a_curve() -> None:
    world = World()
    client, peer = visit(world, ["x25519", "X25519MLKEM768"], [])
    assert is_connected(client)
    assert peer.requests == [NUMBERS["X25519MLKEM768"]]


def test_a_session_is_resumed_across_the_request() -> None:
    world = world_with("x25519")
    first = world.client(cipher_suites=[tls.CipherSuite.AES_128_GCM_SHA256])
    world.talk(first)
    ticket = first.last_ticket  # type: ignore[attr-defined]
    client, peer = visit(world, ["secp521r1", "x25519"], session_ticket=ticket)
    assert is_connected(client)
    assert client.tls.session_resumed
    assert len(peer.requests) == 1


def test_without_a_common_group_the_handshake_fails() -> None:
    client, peer = visit(world_with("x25519"), ["secp521r1"])
    assert not peer.requests
    assert client._close_event is not None
    assert client._close_event.error_code == 0x100 + tls.AlertDescription.handshake_failure


def test_where_retry_is_on_nothing_is_held_before_the_address_is_validated() -> None:
    """A HelloRetryRequest needs state, its Retry packet none (RFC 9001 section 4.7)."""
    world = world_with("x25519", retry="always")
    with TlsClient(["secp521r1", "x25519"]).patched() as peer:
        client = world.client()
        for data, _ in client.datagrams_to_send(NOW):
            answers = world.receive(data)
        assert not world.endpoint.connections
        assert world.endpoint.counters["retries"]
        assert not peer.requests
        client.receive_datagram(answers[0], ("server", 443), NOW)
        world.talk(client)
    assert is_connected(client)
    assert len(peer.requests) == 1
    (connection,) = world.endpoint.connections
    assert connection.token_accepted


def test_what_a_request_holds_is_a_hash_and_not_the_key_shares() -> None:
    world = world_with("x25519")
    with TlsClient(["X25519MLKEM768", "x25519"]).patched():
        client = world.client()
        for data, _ in client.datagrams_to_send(NOW):
            world.endpoint.receive(data, CLIENT, NOW)
    (connection,) = world.endpoint.connections
    retried = connection.handshake.tls._retried  # type: ignore[union-attr]
    assert retried is not None
    assert retried.hello.key_shares is None
    assert len(retried.transcript) < 200


def _same_group_again(hello: tls.ClientHello) -> None:
    hello.key_share = [(NUMBERS["secp521r1"], new_share("secp521r1")[0])]


def _two_groups(hello: tls.ClientHello) -> None:
    hello.key_share = [*hello.key_share, (NUMBERS["secp384r1"], new_share("secp384r1")[0])]


def _twice(hello: tls.ClientHello) -> None:
    hello.key_share = [*hello.key_share, *hello.key_share]


def _early_data(hello: tls.ClientHello) -> None:
    hello.early_data = True


def _other_random(hello: tls.ClientHello) -> None:
    hello.random = b"r" * 32


def _other_suites(hello: tls.ClientHello) -> None:
    hello.cipher_suites = [*hello.cipher_suites, 0x1303]


def _other_name(hello: tls.ClientHello) -> None:
    hello.server_name = "other"


def _no_name(hello: tls.ClientHello) -> None:
    hello.server_name = None


def _other_groups(hello: tls.ClientHello) -> None:
    assert hello.supported_groups
    hello.supported_groups = hello.supported_groups[1:]


def _other_signatures(hello: tls.ClientHello) -> None:
    assert hello.signature_algorithms
    hello.signature_algorithms = hello.signature_algorithms[:1]


def _other_protocols(hello: tls.ClientHello) -> None:
    assert hello.alpn_protocols
    hello.alpn_protocols = [*hello.alpn_protocols, "h3"]


def _other_parameters(hello: tls.ClientHello) -> None:
    hello.other_extensions = [(0x39, b"\x01\x02\x40\x64" + value) if kind == 0x39 else (kind, value)
                              for kind, value in hello.other_extensions]  # fmt: skip


def _new_compression(hello: tls.ClientHello) -> None:
    hello.other_extensions = [*hello.other_extensions, (27, b"\x02\x00\x02")]


@pytest.mark.parametrize(
    "change",
    [
        _same_group_again, _two_groups, _twice, _early_data, _other_random, _other_suites,
        _other_name, _no_name, _other_groups, _other_signatures, _other_protocols,
        _other_parameters, _new_compression,
    ],
)  # fmt: skip
def test_an_answer_that_is_not_what_was_asked_for_aborts_the_handshake(change: Change) -> None:
    client, peer = visit(world_with("x25519"), ["secp521r1", "x25519", "secp384r1"], change=change)
    assert len(peer.requests) == 1, "it is asked once"
    assert client._close_event is not None
    assert client._close_event.error_code == ILLEGAL_PARAMETER


def _padding(hello: tls.ClientHello) -> None:
    hello.other_extensions = [*hello.other_extensions, (21, bytes(40))]


def _unknown_extension(hello: tls.ClientHello) -> None:
    hello.other_extensions = [*hello.other_extensions, (0xFE0D, b"changes by rules of its own")]


@pytest.mark.parametrize("change", [_padding, _unknown_extension])
def test_what_may_change_after_the_request_may_change(change: Change) -> None:
    client, _ = visit(world_with("x25519"), ["secp521r1", "x25519"], change=change)
    assert is_connected(client)


def test_a_malformed_share_after_the_request_aborts_the_handshake() -> None:
    def small_order(hello: tls.ClientHello) -> None:
        hello.key_share = [(NUMBERS["x25519"], bytes(32))]

    client, _ = visit(world_with("x25519"), ["secp521r1", "x25519"], change=small_order)
    assert client._close_event is not None
    assert client._close_event.error_code == ILLEGAL_PARAMETER
