"""Clients that prove who they are in QUIC's handshake, as a stock client does it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.connection import QuicConnection

from quicedge.client_auth.material import ClientAuthPem
from quicedge.client_auth.rules import ClientAuth, Identity
from quicedge.config.schema import ClientAuthMode
from quicedge.quic.client_proof import check_proof, read_certificate_message
from quicedge.quic.tls import handshake_message
from tests.support.clientpki import Certified, authority, client, revocation_list
from tests.support.tlsclient import TlsClient
from tests.support.world import World, is_connected

ROOT = authority("root")
INTERMEDIATE = authority("intermediate", ROOT)
OTHER = authority("other")
REQUIRE, REQUEST = ClientAuthMode.REQUIRE, ClientAuthMode.REQUEST
ALERTS = tls.AlertDescription


@cache
def alice() -> Certified:
    return client("alice", INTERMEDIATE)


def rules(*hosts: str, mode: ClientAuthMode = REQUIRE, crl: bytes = b"") -> ClientAuth:
    hosts = hosts or ("*",)
    return ClientAuth([ClientAuthPem(hosts=[*hosts], mode=mode, ca=ROOT.pem, crl=crl)])


def world_with(auth: ClientAuth | None, **options: Any) -> World:
    world = World(**options)
    world.endpoint.settings.client_auth = auth
    return world


def visit(world: World, who: Certified | None = None, **options: Any) -> QuicConnection:
    if who is not None:
        options["certificate"] = who.certificate
        options["certificate_chain"] = list(who.intermediates)
        options["private_key"] = who.key
    visitor = world.client(**options)
    world.talk(visitor)
    return visitor


def identity(world: World) -> Identity | None:
    (connection,) = world.endpoint.connections
    return connection.handshake.identity


def alert_of(visitor: QuicConnection) -> int | None:
    event = visitor._close_event
    return None if event is None else event.error_code - 0x100


@pytest.mark.parametrize("kind", ["secp256r1", "secp384r1", "rsa2048", "ed25519", "ed448"])
def test_a_client_is_known_by_its_certificate(kind: str) -> None:
    who = client("alice", INTERMEDIATE, kind=kind)
    world = world_with(rules())
    assert is_connected(visit(world, who))
    found = identity(world)
    assert found is not None
    assert found.certificate is not None
    assert found.certificate.subject == "CN=alice,O=Example"
    assert found.certificate.chain[0] == who.chain[0]
    assert len(found.certificate.chain) == 3  # up to the authority


@pytest.mark.parametrize(
    ("who", "crl", "alert"),
    [
        (None, b"", ALERTS.certificate_required),
        (client("eve", OTHER), b"", ALERTS.unknown_ca),
        (client("late", ROOT, age=1), b"", ALERTS.certificate_expired),
        (client("weak", ROOT, kind="rsa1024"), b"", ALERTS.unsupported_certificate),
        (
            alice(), revocation_list(ROOT) + revocation_list(INTERMEDIATE, alice()),
            ALERTS.certificate_revoked,
        ),
        (alice(), revocation_list(ROOT), ALERTS.certificate_unknown),
    ],
    ids=["none", "another authority", "expired", "weak", "revoked", "no list"],
)  # fmt: skip
def test_who_is_not_accepted_is_told_why(who: Certified | None, crl: bytes, alert: int) -> None:
    world = world_with(rules(crl=crl))
    visitor = visit(world, who)
    assert alert_of(visitor) == alert
    assert not world.endpoint.connections or identity(world) is None


def test_a_certificate_without_its_key_proves_nothing() -> None:
    thief = client("thief", OTHER)
    stolen = Certified(alice().certificate, thief.key, alice().intermediates)
    assert alert_of(visit(world_with(rules()), stolen)) == ALERTS.decrypt_error


def test_a_client_that_is_only_requested_a_certificate_may_have_none() -> None:
    world = world_with(rules(mode=REQUEST))
    assert is_connected(visit(world))
    found = identity(world)
    assert found is not None
    assert found.certificate is None


def test_a_bad_certificate_is_refused_where_none_would_do() -> None:
    visitor = visit(world_with(rules(mode=REQUEST)), client("eve", OTHER))
    assert alert_of(visitor) == ALERTS.unknown_ca


def test_other_hosts_ask_nobody() -> None:
    world = world_with(rules("secret.example"))
    assert is_connected(visit(world))
    assert identity(world) is None


def test_a_ticket_from_before_the_rule_resumes_nothing() -> None:
    world = world_with(None, early_data=b"terms")
    ticket = visit(world).last_ticket  # type: ignore[attr-defined]
    assert ticket is not None
    resumed = visit(world, session_ticket=ticket)
    assert resumed.tls.session_resumed
    ticket = resumed.last_ticket  # type: ignore[attr-defined]
    world.endpoint.settings.client_auth = rules()
    refused = visit(world, session_ticket=ticket)
    assert not refused.tls.session_resumed
    assert not refused.tls.early_data_accepted
    assert alert_of(refused) == ALERTS.certificate_required


def test_a_client_proves_who_it_is_in_every_handshake() -> None:
    world = world_with(rules(), early_data=b"terms")
    visitor = visit(world, alice())
    assert is_connected(visitor)
    assert visitor.last_ticket is None  # type: ignore[attr-defined]


def test_the_certificate_is_asked_for_after_a_hello_retry_too() -> None:
    world = world_with(rules())
    with TlsClient(["secp521r1", "x25519"], ["secp521r1"]).patched():
        world.endpoint.settings.groups = [
            group for group in world.endpoint.settings.groups if group.name == "x25519"
        ]
        assert is_connected(visit(world, alice()))
    found = identity(world)
    assert found is not None
    assert found.certificate is not None


def encoded(*entries: bytes, context: bytes = b"\0", extensions: bytes = b"\0\0") -> bytes:
    listed = b"".join(len(der).to_bytes(3, "big") + der + extensions for der in entries)
    return handshake_message(11, context + len(listed).to_bytes(3, "big") + listed)


@pytest.mark.parametrize(
    ("message", "alert"),
    [
        (encoded(b"der", context=b"\1c"), ALERTS.illegal_parameter),
        (encoded(b""), ALERTS.decode_error),
        (encoded(b"der", extensions=b"\0\4\0\5\0\0"), ALERTS.unsupported_extension),
        (encoded(b"der") + b"more", ALERTS.decode_error),
        (encoded(b"der")[:-3], ALERTS.decode_error),
        (handshake_message(11, b"\0\0"), ALERTS.decode_error),
        (handshake_message(11, b""), ALERTS.illegal_parameter),
    ],
)
def test_a_malformed_certificate_message_has_its_alert(message: bytes, alert: int) -> None:
    with pytest.raises(tls.Alert) as raised:
        read_certificate_message(message)
    assert raised.value.description == alert


@pytest.mark.parametrize(
    ("body", "alert"),
    [
        (b"\x04\x01\0\1s", ALERTS.illegal_parameter),  # RSA with PKCS #1
        (b"\x05\x03\0\1s", ALERTS.illegal_parameter),  # another curve than the key's
        (b"\x08\x04\0\1s", ALERTS.illegal_parameter),  # not its kind of key
        (b"\x04\x03\0\1s", ALERTS.decrypt_error),
        (b"\x04\x03\0\1s!", ALERTS.decode_error),
        (b"\x04\x03\0\2s", ALERTS.decode_error),
        (b"", ALERTS.decode_error),
    ],
)
def test_a_malformed_proof_has_its_alert(body: bytes, alert: int) -> None:
    with pytest.raises(tls.Alert) as raised:
        check_proof(handshake_message(15, body), alice().chain[0], b"signed")
    assert raised.value.description == alert
