"""Key exchange groups: what a client of each derives, and what is no key share."""

from __future__ import annotations

import pytest
from aioquic import tls
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519

from quicedge.config.groups import ALL_GROUPS
from quicedge.config.schema import Tls
from quicedge.quic import key_exchange
from quicedge.quic.key_exchange import DEFAULT_GROUPS, GROUPS, usable_by_name
from tests.support.tlsclient import CURVES, TlsClient, new_share, point_of
from tests.support.world import World, is_connected

HYBRIDS = ("X25519MLKEM768", "SecP256r1MLKEM768")


@pytest.mark.parametrize("name", GROUPS)
def test_both_sides_derive_the_same_secret(name: str) -> None:
    share, finish = new_share(name)
    ours, secret = GROUPS[name].agree(share)
    assert finish(ours) == secret


@pytest.mark.parametrize("name", GROUPS)
def test_every_exchange_has_a_fresh_key(name: str) -> None:
    share, _ = new_share(name)
    first, second = GROUPS[name].agree(share), GROUPS[name].agree(share)
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_x25519mlkem768_puts_mlkem_first() -> None:
    kem, key = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    share = kem.public_key().public_bytes_raw() + key.public_key().public_bytes_raw()
    ours, secret = GROUPS["X25519MLKEM768"].agree(share)
    assert (len(share), len(ours), len(secret)) == (1216, 1120, 64)
    assert secret[:32] == kem.decapsulate(ours[:1088])
    assert secret[32:] == key.exchange(x25519.X25519PublicKey.from_public_bytes(ours[1088:]))


def test_secp256r1mlkem768_puts_the_curve_first() -> None:
    kem, key = mlkem.MLKEM768PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    share = point_of(key.public_key()) + kem.public_key().public_bytes_raw()
    ours, secret = GROUPS["SecP256r1MLKEM768"].agree(share)
    assert (len(share), len(ours), len(secret)) == (1249, 1153, 64)
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ours[:65])
    assert secret[:32] == key.exchange(ec.ECDH(), point)
    assert secret[32:] == kem.decapsulate(ours[65:])


def _compressed(name: str) -> bytes:
    point = ec.generate_private_key(CURVES[name]).public_key()
    size = (point.curve.key_size + 7) // 8
    numbers = point.public_numbers()
    return bytes((2 + (numbers.y & 1),)) + numbers.x.to_bytes(size, "big")


def _malformed(name: str) -> dict[str, bytes]:
    """What is no key share of a group, by what is wrong with it."""
    share, _ = new_share(name)
    found = {"short": share[:-1], "long": share + b"\0"}
    if name in CURVES:
        size = len(share)
        found["compressed"] = _compressed(name)
        found["padded compressed"] = _compressed(name).ljust(size, b"\0")
        found["hybrid form"] = b"\6" + share[1:]
        found["off the curve"] = share[:-1] + bytes((share[-1] ^ 1,))
        found["infinity"] = b"\0"
        found["coordinates too large"] = b"\4" + b"\xff" * (size - 1)
    if name in ("x25519", "x448"):
        found["small order"] = bytes(len(share))
    if name in HYBRIDS:
        first = name == "X25519MLKEM768"
        found["classical alone"] = share[1184:] if first else share[:65]
        found["ML-KEM alone"] = share[:1184] if first else share[65:]
        # A coefficient of at least q fails the modulus check of FIPS 203 section 7.2.
        kem = b"\xff" * 1184
        found["unreduced ML-KEM key"] = kem + share[1184:] if first else share[:65] + kem
        if first:
            found["small order"] = share[:1184] + bytes(32)
            found["parts swapped"] = share[1184:] + share[:1184]
        else:
            found["off the curve"] = share[:64] + bytes((share[64] ^ 1,)) + share[65:]
            found["compressed"] = _compressed("secp256r1") + share[65:]
    return found


MALFORMED = [(name, fault) for name in GROUPS for fault in _malformed(name)]


@pytest.mark.parametrize(("name", "fault"), MALFORMED)
def test_a_malformed_share_is_refused(name: str, fault: str) -> None:
    with pytest.raises(ValueError):
        GROUPS[name].agree(_malformed(name)[fault])


@pytest.mark.parametrize(
    ("name", "fault"),
    [("secp256r1", "compressed"), ("x25519", "small order"), ("secp521r1", "off the curve"),
     *((name, fault) for name, fault in MALFORMED if name in HYBRIDS)],
)  # fmt: skip
def test_a_malformed_share_aborts_the_handshake_with_illegal_parameter(
    name: str, fault: str
) -> None:
    world = World()
    with TlsClient([name], [(name, _malformed(name)[fault])]).patched():
        client = world.client()
        world.talk(client)
    assert client._close_event is not None
    assert client._close_event.error_code == 0x100 + tls.AlertDescription.illegal_parameter


@pytest.mark.parametrize("name", GROUPS)
def test_a_handshake_in_every_group(name: str) -> None:
    world = World()
    with TlsClient([name]).patched():
        client = world.client()
        world.talk(client)
    assert is_connected(client)
    (connection,) = world.endpoint.connections
    assert connection.handshake.group is GROUPS[name]
    assert not connection.handshake.hello_retried


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        (["x25519", "X25519MLKEM768"], "X25519MLKEM768"),
        (["secp256r1", "SecP256r1MLKEM768", "x25519"], "SecP256r1MLKEM768"),
        (["SecP256r1MLKEM768", "X25519MLKEM768"], "X25519MLKEM768"),
        (["secp384r1", "secp256r1", "x25519"], "x25519"),
    ],
)
def test_hybrids_are_preferred_whatever_the_clients_order(shares: list[str], chosen: str) -> None:
    world = World()
    with TlsClient(shares, shares).patched():
        world.talk(world.client())
    (connection,) = world.endpoint.connections
    assert connection.handshake_complete
    assert connection.handshake.group is GROUPS[chosen]


def test_a_client_that_could_send_a_hybrid_but_did_not_waits_no_round_trip_for_one() -> None:
    world = World()
    with TlsClient(["X25519MLKEM768", "x25519"], ["x25519"]).patched() as peer:
        world.talk(world.client())
    (connection,) = world.endpoint.connections
    assert connection.handshake.group is GROUPS["x25519"]
    assert not peer.requests


def test_groups_that_are_not_configured_are_not_chosen() -> None:
    world = World()
    world.endpoint.settings.groups = usable_by_name(["secp384r1", "x25519"])
    shares = ["X25519MLKEM768", "x25519", "secp384r1"]
    with TlsClient(shares, shares).patched():
        world.talk(world.client())
    (connection,) = world.endpoint.connections
    assert connection.handshake.group is GROUPS["secp384r1"]


def test_without_mlkem_clients_of_hybrids_get_a_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_exchange, "MLKEM_MISSING", "not in this OpenSSL")
    world = World()
    world.endpoint.settings.groups = usable_by_name(Tls().groups)
    shares = ["X25519MLKEM768", "x25519"]
    with TlsClient(shares, shares).patched():
        client = world.client()
        world.talk(client)
    assert is_connected(client)
    (connection,) = world.endpoint.connections
    assert connection.handshake.group is GROUPS["x25519"]


def test_the_configuration_knows_the_same_groups_in_the_same_order() -> None:
    assert list(ALL_GROUPS) == list(GROUPS)
    assert usable_by_name(ALL_GROUPS) == DEFAULT_GROUPS
    assert Tls().groups == list(ALL_GROUPS[:5])
