"""Our TLS server against OpenSSL's client: the same secrets in every group and cipher suite."""

from __future__ import annotations

import pytest
from aioquic import tls
from OpenSSL import SSL

from quicedge.quic.frames import Epoch
from quicedge.quic.key_exchange import GROUPS, usable_by_name
from quicedge.quic.tickets import Tickets
from quicedge.quic.tls import CertificateStore
from tests.support.openssl import Hooks, OpenSslClient, server_tls
from tests.unit.quic.test_certificate_compression import long_chain
from tests.unit.quic.test_tls_server import chain_of

LABELS = {
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET": (Epoch.HANDSHAKE, False),
    "SERVER_HANDSHAKE_TRAFFIC_SECRET": (Epoch.HANDSHAKE, True),
    "CLIENT_TRAFFIC_SECRET_0": (Epoch.ONE_RTT, False),
    "SERVER_TRAFFIC_SECRET_0": (Epoch.ONE_RTT, True),
}
SUITES = [
    tls.CipherSuite.AES_128_GCM_SHA256,
    tls.CipherSuite.AES_256_GCM_SHA384,
    tls.CipherSuite.CHACHA20_POLY1305_SHA256,
]


def same_secrets(client: OpenSslClient, hooks: Hooks) -> bool:
    return all(client.secrets[label] == hooks.secrets[key] for label, key in LABELS.items())


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("group", GROUPS)
def test_the_secrets_of_a_handshake(
    group: str, suite: tls.CipherSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks()
    server = server_tls(hooks)
    client = OpenSslClient([group], f"TLS_{suite.name}")
    client.shake_hands(server, hooks, monkeypatch)
    assert client.is_complete
    assert server.group is GROUPS[group]
    assert hooks.suite is suite
    assert same_secrets(client, hooks)


def test_by_default_it_exchanges_keys_in_a_hybrid(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = Hooks()
    server = server_tls(hooks)
    client = OpenSslClient()
    client.shake_hands(server, hooks, monkeypatch)
    assert server.group is GROUPS["X25519MLKEM768"]
    assert same_secrets(client, hooks)


@pytest.mark.parametrize("group", GROUPS)
def test_the_secrets_after_a_hello_retry_request(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks()
    server = server_tls(hooks, groups=usable_by_name([group]))
    first = "secp256r1" if group != "secp256r1" else "x25519"
    # OpenSSL sends a share of the first group alone.
    client = OpenSslClient([first, group])
    client.shake_hands(server, hooks, monkeypatch)
    assert client.is_complete
    assert server.hello_retried
    assert server.group is GROUPS[group]
    assert same_secrets(client, hooks)


@pytest.mark.parametrize("retried", [False, True], ids=["at once", "after a request"])
def test_the_secrets_of_a_resumed_session(retried: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = Tickets(b"s" * 32)
    hooks = Hooks()
    first = OpenSslClient(["x25519", "secp384r1"])
    first.shake_hands(server_tls(hooks, tickets=tickets), hooks, monkeypatch)
    hooks = Hooks()
    groups = usable_by_name(["secp384r1" if retried else "x25519"])
    server = server_tls(hooks, tickets=tickets, groups=groups)
    client = OpenSslClient(previous=first)
    client.shake_hands(server, hooks, monkeypatch)
    assert server.resumed
    assert server.hello_retried is retried
    assert same_secrets(client, hooks)


@pytest.mark.parametrize("kind", ["rsa", "secp256r1", "secp384r1", "ed25519", "long chain"])
def test_its_client_accepts_every_kind_of_certificate(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates: CertificateStore = long_chain() if kind == "long chain" else chain_of(kind)[0]
    hooks = Hooks()
    server = server_tls(hooks, certificates=certificates)
    client = OpenSslClient()
    client.shake_hands(server, hooks, monkeypatch)
    certificate = client.connection.get_peer_certificate(as_cryptography=True)
    assert certificate.public_key() == certificates.default.private_key.public_key()
    assert same_secrets(client, hooks)


def test_it_refuses_a_changed_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it checks ours at all."""
    hooks = Hooks()
    server = server_tls(hooks)
    monkeypatch.setattr(
        "quicedge.quic.tls_server._finished", lambda *_: b"\x14\0\0\x20" + bytes(32)
    )
    with pytest.raises(SSL.Error):
        OpenSslClient().shake_hands(server, hooks, monkeypatch)
