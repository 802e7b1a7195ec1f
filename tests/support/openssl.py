"""OpenSSL's TLS 1.3 without a network, by way of pyOpenSSL: as server that answers one ClientHello,
and as client of our own TLS server, whose messages are put into records for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from aioquic import tls
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from OpenSSL import SSL
from OpenSSL._util import lib

from quicedge.quic.errors import TransportError
from quicedge.quic.frames import Epoch
from quicedge.quic.key_exchange import DEFAULT_GROUPS, Group
from quicedge.quic.key_schedule import expand_label
from quicedge.quic.tls import CertificateStore
from quicedge.quic.tls_server import ServerTls
from tests.support.quicpair import store
from tests.support.tlsclient import RETRY_RANDOM

HANDSHAKE, APPLICATION_DATA, ALERT = 22, 23, 21
_ALPN = b"test"


class Verdict(NamedTuple):
    """What a server makes of a ClientHello."""

    alert: int | None
    """The alert that it ends the handshake with; None: it goes on."""
    is_retry: bool = False
    group: int | None = None


def verdict_of(message: bytes) -> Verdict:
    """From a ServerHello or HelloRetryRequest."""
    at = 39 + message[38] + 3
    end = at + 2 + int.from_bytes(message[at : at + 2], "big")
    at += 2
    group = None
    while at < end:
        kind, size = (int.from_bytes(message[i : i + 2], "big") for i in (at, at + 2))
        if kind == 51:
            group = int.from_bytes(message[at + 4 : at + 6], "big")
        at += 4 + size
    return Verdict(None, message[6:38] == RETRY_RANDOM, group)


def record(kind: int, content: bytes) -> bytes:
    return bytes((kind, 3, 3)) + len(content).to_bytes(2, "big") + content


def plain_records(message: bytes) -> bytes:
    """A handshake message in as many records as it needs."""
    return b"".join(
        record(HANDSHAKE, message[at : at + 16384]) for at in range(0, len(message), 16384)
    )


def records_of(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        found.append((data[at], data[at : at + 5 + size]))
        at += 5 + size
    return found


def _context(groups: Sequence[str]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    if groups:
        assert lib.SSL_CTX_set1_curves_list(context._context, ":".join(groups).encode()) == 1
    return context


@cache
def _server_context(groups: tuple[str, ...]) -> SSL.Context:
    from cryptography import x509

    context = _context(groups)
    certificate = store().default
    context.use_certificate(x509.load_pem_x509_certificate(certificate.chain_pem))
    context.use_privatekey(certificate.private_key)
    context.set_alpn_select_callback(
        lambda _, offered: _ALPN if _ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS
    )
    return context


def openssl_verdict(hello: bytes, groups: tuple[str, ...] = ()) -> Verdict:
    """What OpenSSL's server answers; `groups`: by OpenSSL's names, default: its own."""
    server = SSL.Connection(_server_context(groups), None)
    server.set_accept_state()
    server.bio_write(plain_records(hello))
    try:
        server.do_handshake()
    except (SSL.WantReadError, SSL.Error):
        pass
    kind, data = records_of(server.bio_read(65536))[0]
    return Verdict(data[6]) if kind == ALERT else verdict_of(data[5:])


class Hooks:
    """Takes secrets by epoch and direction, and has no transport parameters."""

    version = 1

    def __init__(self) -> None:
        self.secrets: dict[tuple[Epoch, bool], bytes] = {}
        self.suite = tls.CipherSuite.AES_128_GCM_SHA256

    def on_secret(
        self, epoch: Epoch, suite: tls.CipherSuite, secret: bytes, *, sending: bool
    ) -> None:
        self.secrets[epoch, sending] = secret
        self.suite = suite

    def on_peer_parameters(self, parameters: bytes | None, alpn: str | None) -> bytes:
        return b""


def server_tls(
    hooks: Hooks,
    *,
    groups: Sequence[Group] = DEFAULT_GROUPS,
    certificates: CertificateStore | None = None,
    suites: list[tls.CipherSuite] | None = None,
    random: Callable[[int], bytes] = bytes,
    **options: Any,
) -> ServerTls:
    return ServerTls(
        hooks,
        certificates=certificates or store(),
        alpn_protocols=[_ALPN.decode()],
        cipher_suites=suites,
        groups=groups,
        random=random,
        **options,
    )


def our_verdict(hello: bytes, groups: Sequence[Group] = DEFAULT_GROUPS) -> Verdict | None:
    """What our server answers; None where it is not TLS that it breaks, but QUIC's rules on it."""
    try:
        messages = server_tls(Hooks(), groups=groups).receive(Epoch.INITIAL, hello, 0.0)
    except tls.Alert as alert:
        return Verdict(int(alert.description))
    except TransportError:
        return None
    return verdict_of(messages[0][1])


class _MiddleboxId(bytes):
    """A session ID that QUIC forbids and OpenSSL's client over TCP insists on: ours echoes it."""

    def __bool__(self) -> bool:
        return False


class OpenSslClient:
    """A client of our TLS server: call `shake_hands`."""

    def __init__(
        self,
        groups: Sequence[str] = (),
        suites: str = "",
        previous: OpenSslClient | None = None,
    ) -> None:
        """`previous`: whose session it resumes; both have the same groups and suites."""
        if previous is None:
            context = _context(groups)
            context.set_alpn_protos([_ALPN])
            if suites:
                context.set_tls13_ciphersuites(suites.encode())
            context.set_keylog_callback(lambda end, line: end.get_app_data()._on_secret(line))
        else:
            context = previous.connection.get_context()
        self.secrets: dict[str, bytes] = {}
        self.connection = SSL.Connection(context, None)
        self.connection.set_app_data(self)
        self.connection.set_connect_state()
        self.connection.set_tlsext_host_name(b"localhost")
        if previous is not None:
            session = previous.connection.get_session()
            assert session is not None
            self.connection.set_session(session)
        self.is_complete = False

    def _on_secret(self, line: bytes) -> None:
        label, _random, secret = line.split()
        self.secrets[label.decode()] = bytes.fromhex(secret.decode())

    def hello(self) -> bytes:
        """Its ClientHello."""
        self._step()
        return b"".join(
            data[5:] for kind, data in records_of(self.connection.bio_read(65536))
            if kind == HANDSHAKE
        )  # fmt: skip

    def _step(self) -> None:
        try:
            self.connection.do_handshake()
            self.is_complete = True
        except SSL.WantReadError:
            pass

    def shake_hands(self, server: ServerTls, hooks: Hooks, monkeypatch: Any) -> None:
        """Until both ends are complete; the ticket is delivered too."""
        from quicedge.quic import tls_server

        read = tls_server.read_client_hello

        def tolerant(message: bytes) -> Any:
            hello = read(message)
            hello.session_id = _MiddleboxId(hello.session_id)
            return hello

        monkeypatch.setattr(tls_server, "read_client_hello", tolerant)
        sealers: dict[Epoch, _Records] = {}
        hello = self.hello()
        while not server.is_complete:
            self._deliver(server.receive(Epoch.INITIAL, hello, 0.0), hooks, sealers)
            hello = b""
            self._step()
            for kind, data in records_of(self.connection.bio_read(65536)):
                if kind == HANDSHAKE:  # the second ClientHello
                    hello += data[5:]
                elif kind == APPLICATION_DATA:
                    opener = _Records(hooks, Epoch.HANDSHAKE, sending=False)
                    message = opener.open(data)
                    self._deliver(server.receive(Epoch.HANDSHAKE, message, 0.0), hooks, sealers)
        try:
            self.connection.recv(1)  # takes the ticket
        except SSL.WantReadError:
            pass

    def _deliver(self, messages: Any, hooks: Hooks, sealers: dict[Epoch, _Records]) -> None:
        for epoch, message in messages:
            if epoch is Epoch.INITIAL:
                self.connection.bio_write(plain_records(message))
                continue
            if epoch not in sealers:
                sealers[epoch] = _Records(hooks, epoch, sending=True)
            self.connection.bio_write(sealers[epoch].seal(message))


class _Records:
    """Records under a traffic secret of our server (RFC 8446 section 5.2)."""

    def __init__(self, hooks: Hooks, epoch: Epoch, *, sending: bool) -> None:
        secret = hooks.secrets[epoch, sending]
        algorithm = tls.cipher_suite_hash(hooks.suite)
        size = 16 if hooks.suite is tls.CipherSuite.AES_128_GCM_SHA256 else 32
        key = expand_label(algorithm, secret, b"key", b"", size)
        chacha = hooks.suite is tls.CipherSuite.CHACHA20_POLY1305_SHA256
        self._aead = ChaCha20Poly1305(key) if chacha else AESGCM(key)
        self._iv = int.from_bytes(expand_label(algorithm, secret, b"iv", b"", 12), "big")
        self._number = 0

    def _nonce(self) -> bytes:
        self._number += 1
        return (self._iv ^ (self._number - 1)).to_bytes(12, "big")

    def seal(self, message: bytes) -> bytes:
        size = len(message) + 1 + 16
        header = bytes((APPLICATION_DATA, 3, 3)) + size.to_bytes(2, "big")
        return header + self._aead.encrypt(self._nonce(), message + bytes((HANDSHAKE,)), header)

    def open(self, data: bytes) -> bytes:
        content = self._aead.decrypt(self._nonce(), data[5:], data[:5]).rstrip(b"\0")
        assert content[-1] == HANDSHAKE
        return content[:-1]
