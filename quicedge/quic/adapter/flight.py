"""The server's first flight of TLS 1.3 (RFC 8446 section 4): from ClientHello to Finished.

It takes the place of aioquic's, which reads and writes each vector through a generator: a third of
what a handshake costs. The states, the alerts and what follows the flight stay aioquic's.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import NamedTuple

from aioquic import tls
from aioquic.buffer import Buffer
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x448, x25519

from quicedge.quic import hello as client
from quicedge.quic.hello import TLS_1_2, TLS_1_3, ClientHello, OfferedPsk, read_client_hello
from quicedge.quic.keyschedule import KeySchedule
from quicedge.quic.tickets import Session
from quicedge.quic.tls import PrivateKey, ServerCertificate, handshake_message

_CHACHA20 = tls.CipherSuite.CHACHA20_POLY1305_SHA256
_SUITES = (tls.CipherSuite.AES_128_GCM_SHA256, tls.CipherSuite.AES_256_GCM_SHA384, _CHACHA20)
"""In the order we prefer; AES-128 is what every TLS 1.3 client has (RFC 8446 section 9.1)."""
_CURVES = {
    tls.Group.SECP256R1: ec.SECP256R1(),
    tls.Group.SECP384R1: ec.SECP384R1(),
    tls.Group.SECP521R1: ec.SECP521R1(),
}
_PSK_DHE_KE = 1


_GROUPS_TO_ASK_FOR = (
    tls.Group.X25519, tls.Group.SECP256R1, tls.Group.SECP384R1, tls.Group.X448,
)  # fmt: skip
"""In the order we prefer."""
_RETRY_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()
"""RFC 8446 section 4.1.3: what tells a HelloRetryRequest from a ServerHello."""


class _Retried(NamedTuple):
    """A HelloRetryRequest that was sent."""

    group: int
    suite: tls.CipherSuite
    transcript: bytes
    """What the transcript holds before the second ClientHello."""

    def check_answer(self, hello: ClientHello, suite: tls.CipherSuite) -> None:
        """RFC 8446 section 4.1.2: what may differ in the second ClientHello, and must."""
        if [group for group, _ in hello.key_shares or ()] != [self.group]:
            raise tls.AlertIllegalParameter("ClientHello has not the one key share asked for")
        if suite != self.suite:
            raise tls.AlertIllegalParameter("ClientHello has other cipher suites than the first")
        # RFC 8446 section 4.2.10: a client MUST NOT include it in its followup ClientHello.
        if hello.early_data:
            raise tls.AlertIllegalParameter("ClientHello offers early data again")


class FlightTls(tls.Context):
    """See the module."""

    key_schedule: KeySchedule  # type: ignore[assignment]  # same calls
    _enc_key: bytes
    group: str | None = None
    """Name of the group of the key exchange, once it is agreed."""
    _retried: _Retried | None = None

    def certificate_for(self, hello: ClientHello) -> ServerCertificate:
        """The certificate to serve; to be overridden."""
        raise NotImplementedError

    def session_of(self, offered: OfferedPsk) -> Session | None:
        """The session a client may resume with what it offers; to be overridden."""
        raise NotImplementedError

    def _server_handle_hello(
        self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer
    ) -> None:
        message = input_buf.data_slice(0, input_buf.capacity)
        hello = read_client_hello(message)
        input_buf.seek(input_buf.capacity)
        certificate = self.certificate_for(hello)
        suite = self._negotiate(hello)
        if self._retried is None and (wanted := self._group_to_ask_for(hello)) is not None:
            initial_buf.push_bytes(self._ask_for(wanted, suite, message))
            return
        if self._retried is not None:
            self._retried.check_answer(hello, suite)
        if self.alpn_cb is not None and self.alpn_negotiated is not None:
            self.alpn_cb(self.alpn_negotiated)
        resumed = self._resume(hello, message, suite)
        if not resumed:
            self.key_schedule = KeySchedule(suite)
            self.key_schedule.extract(None)
            self.key_schedule.update_hash(self._transcript_before + message)
        group, public_key, shared_key = self._exchange(hello)

        self._write(initial_buf, self._server_hello(suite, group, public_key, resumed))
        self.key_schedule.extract(shared_key)
        self._setup_traffic_protection(tls.Direction.ENCRYPT, tls.Epoch.HANDSHAKE, b"s hs traffic")
        self._setup_traffic_protection(tls.Direction.DECRYPT, tls.Epoch.HANDSHAKE, b"c hs traffic")
        self._write(handshake_buf, self._encrypted_extensions())
        if not resumed:
            algorithm = _signature_algorithm(certificate.private_key, hello)
            self._write(handshake_buf, certificate.message)
            self._write(handshake_buf, self._certificate_verify(certificate, algorithm))
        verify_data = self.key_schedule.finished_verify_data(self._enc_key)
        self._write(handshake_buf, handshake_message(tls.HandshakeType.FINISHED, verify_data))

        self.key_schedule.extract(None)
        self._setup_traffic_protection(tls.Direction.ENCRYPT, tls.Epoch.ONE_RTT, b"s ap traffic")
        self._next_dec_key = self.key_schedule.derive_secret(b"c ap traffic")
        self._server_expect_finished()

    def _write(self, buf: Buffer, message: bytes) -> None:
        self.key_schedule.update_hash(message)
        buf.push_bytes(message)

    # --- what is agreed -----------------------------------------------------------------------

    def _negotiate(self, hello: ClientHello) -> tls.CipherSuite:
        """Check what every hello must have, and agree on protocol and cipher suite."""
        if TLS_1_3 not in (hello.supported_versions or ()):
            raise tls.AlertProtocolVersion("No supported protocol version")
        # RFC 8446 section 4.1.2: this vector MUST contain exactly one byte, set to zero.
        if hello.compression_methods != b"\0":
            raise tls.AlertIllegalParameter("ClientHello offers compression")
        # RFC 8446 section 9.2: servers receiving a ClientHello which does not conform to these
        # requirements MUST abort the handshake with a "missing_extension" alert.
        if hello.key_shares is None or hello.supported_groups is None:
            raise tls.AlertMissingExtension("ClientHello has no key share or no groups")
        if hello.pre_shared_key is None and hello.signature_algorithms is None:
            raise tls.AlertMissingExtension("ClientHello has no signature algorithms")
        # RFC 8446 section 4.2.9: if clients offer "pre_shared_key" without a
        # "psk_key_exchange_modes" extension, servers MUST abort the handshake.
        if hello.pre_shared_key is not None and hello.key_exchange_modes is None:
            raise tls.AlertMissingExtension("ClientHello has no key exchange modes")
        suite = _cipher_suite(self._cipher_suites, hello)
        self.alpn_offered = hello.alpn_protocols or []
        self.alpn_negotiated = _alpn(self._alpn_protocols or [], hello)
        self._psk_key_exchange_mode = (
            _PSK_DHE_KE if _PSK_DHE_KE in (hello.key_exchange_modes or b"") else None
        )
        self.client_random = hello.random
        self.server_random = os.urandom(32)
        self.legacy_session_id = hello.session_id
        self.received_extensions = list(hello.others.items())
        return suite

    def _group_to_ask_for(self, hello: ClientHello) -> int | None:
        """The group that the client should send a key share of; None when it has, or cannot."""
        if any(group in self._supported_groups for group, _ in hello.key_shares or ()):
            return None
        offered = hello.supported_groups or ()
        return next((group for group in _GROUPS_TO_ASK_FOR if group in offered), None)

    def _ask_for(self, group: int, suite: tls.CipherSuite, message: bytes) -> bytes:
        """A HelloRetryRequest (RFC 8446 section 4.1.4), in answer to a ClientHello."""
        extensions = _extension(client.SUPPORTED_VERSIONS, _uint16(TLS_1_3)) + _extension(
            client.KEY_SHARE, _uint16(group)
        )
        request = self._hello_message(_RETRY_RANDOM, suite, extensions)
        digest = hashlib.new(tls.cipher_suite_hash(suite).name, message).digest()
        # RFC 8446 section 4.4.1: a hash of the first ClientHello takes its place.
        transcript = handshake_message(tls.HandshakeType.MESSAGE_HASH, digest) + request
        self._retried = _Retried(group, suite, transcript)
        return request

    @property
    def _transcript_before(self) -> bytes:
        """What was said before the ClientHello that is being answered."""
        return b"" if self._retried is None else self._retried.transcript

    def _resume(self, hello: ClientHello, message: bytes, suite: tls.CipherSuite) -> bool:
        """Whether the session of a ticket is resumed; its secret is then in the key schedule."""
        offered = hello.pre_shared_key
        if offered is None or self._psk_key_exchange_mode is None:
            return False
        session = self.session_of(offered)
        if session is None or session.cipher_suite != suite:
            return False
        schedule = KeySchedule(suite)
        schedule.extract(session.resumption_secret)
        binder_key = schedule.derive_secret(b"res binder")
        schedule.update_hash(self._transcript_before + message[: offered.binders_at])
        # RFC 8446 section 4.2.11: prior to accepting PSK key establishment, the server MUST
        # validate the corresponding binder value. If it does not validate, the server MUST abort.
        if not hmac.compare_digest(schedule.finished_verify_data(binder_key), offered.binder):
            raise tls.AlertDecryptError("PSK binder is wrong")
        schedule.update_hash(message[offered.binders_at :])
        self.key_schedule = schedule
        self._session_resumed = True
        if hello.early_data:
            early_key = schedule.derive_secret(b"c e traffic")
            self.early_data_accepted = True
            self.update_traffic_key_cb(tls.Direction.DECRYPT, tls.Epoch.ZERO_RTT, suite, early_key)
        return True

    def _exchange(self, hello: ClientHello) -> tuple[int, bytes, bytes]:
        """Group, our public key and the shared secret, by the first share we can answer."""
        for group, theirs in hello.key_shares or ():
            if group not in self._supported_groups:
                continue
            # RFC 8446 section 4.2.8: each key share MUST correspond to a group offered.
            if group not in (hello.supported_groups or ()):
                raise tls.AlertIllegalParameter("A key share is of a group that was not offered")
            try:
                name, ours, shared = _diffie_hellman(group, theirs)
            except ValueError:
                raise tls.AlertIllegalParameter("ClientHello has an invalid key share") from None
            self.group = name
            return group, ours, shared
        raise tls.AlertHandshakeFailure("No supported key share")

    # --- what is said -------------------------------------------------------------------------

    def _server_hello(
        self, suite: tls.CipherSuite, group: int, public_key: bytes, resumed: bool
    ) -> bytes:
        extensions = _extension(client.SUPPORTED_VERSIONS, _uint16(TLS_1_3)) + _extension(
            client.KEY_SHARE, _uint16(group) + _opaque16(public_key)
        )
        if resumed:
            extensions += _extension(client.PRE_SHARED_KEY, _uint16(0))  # the first one offered
        return self._hello_message(self.server_random, suite, extensions)

    def _hello_message(self, random: bytes, suite: tls.CipherSuite, extensions: bytes) -> bytes:
        session_id = self.legacy_session_id
        body = b"%b%b%c%b%b\0%b" % (
            _uint16(TLS_1_2), random, len(session_id), session_id, _uint16(suite),
            _opaque16(extensions),
        )  # fmt: skip
        return handshake_message(tls.HandshakeType.SERVER_HELLO, body)

    def _encrypted_extensions(self) -> bytes:
        extensions = b"".join(_extension(*extension) for extension in self.handshake_extensions)
        if self.alpn_negotiated is not None:
            name = self.alpn_negotiated.encode("ascii")
            extensions = _extension(client.ALPN, _opaque16(bytes((len(name),)) + name)) + extensions
        if self.early_data_accepted:
            extensions += _extension(client.EARLY_DATA, b"")
        return handshake_message(tls.HandshakeType.ENCRYPTED_EXTENSIONS, _opaque16(extensions))

    def _certificate_verify(self, certificate: ServerCertificate, algorithm: int) -> bytes:
        key: PrivateKey = certificate.private_key
        signature = key.sign(
            self.key_schedule.certificate_verify_data(tls.SERVER_CONTEXT_STRING),
            *tls.signature_algorithm_params(algorithm),
        )
        return handshake_message(
            tls.HandshakeType.CERTIFICATE_VERIFY, _uint16(algorithm) + _opaque16(signature)
        )


def _cipher_suite(supported: list[tls.CipherSuite], hello: ClientHello) -> tls.CipherSuite:
    ours = [suite for suite in _SUITES if suite in supported]
    common = [suite for suite in hello.cipher_suites if suite in ours]
    if not common:
        raise tls.AlertHandshakeFailure("No supported cipher suite")
    # Whoever puts ChaCha20 first has no AES in hardware: it costs them more than it costs us.
    if common[0] == _CHACHA20:
        return _CHACHA20
    return next(suite for suite in ours if suite in common)


def _alpn(supported: list[str], hello: ClientHello) -> str:
    offered = hello.alpn_protocols or []
    for protocol in supported:
        if protocol.encode("ascii") in offered:
            return protocol
    # RFC 9001 section 8.1: endpoints MUST immediately close a connection with a
    # no_application_protocol TLS alert if an application protocol is not negotiated.
    raise tls.AlertNoApplicationProtocol("No common ALPN protocols")


def _signature_algorithm(key: PrivateKey, hello: ClientHello) -> int:
    offered = hello.signature_algorithms or ()
    for algorithm in _signature_algorithms(key):
        if algorithm in offered:
            return algorithm
    raise tls.AlertHandshakeFailure("No supported signature algorithm")


def _signature_algorithms(key: PrivateKey) -> tuple[int, ...]:
    algorithms = tls.SignatureAlgorithm
    if isinstance(key, rsa.RSAPrivateKey):
        # RFC 8446 section 4.4.3: RSA signatures MUST use an RSASSA-PSS algorithm.
        return algorithms.RSA_PSS_RSAE_SHA256, algorithms.RSA_PSS_RSAE_SHA384
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return (algorithms.ED25519,)
    if isinstance(key, ed448.Ed448PrivateKey):
        return (algorithms.ED448,)
    by_curve = {
        "secp256r1": (algorithms.ECDSA_SECP256R1_SHA256,),
        "secp384r1": (algorithms.ECDSA_SECP384R1_SHA384,),
        "secp521r1": (algorithms.ECDSA_SECP521R1_SHA512,),
    }
    return by_curve.get(key.curve.name, ())


def _diffie_hellman(group: int, theirs: bytes) -> tuple[str, bytes, bytes]:
    """Name of the group, a fresh public key and the shared secret; raises ValueError."""
    if group == tls.Group.X25519:
        key = x25519.X25519PrivateKey.generate()
        shared = key.exchange(x25519.X25519PublicKey.from_public_bytes(theirs))
        return "x25519", key.public_key().public_bytes_raw(), shared
    if group == tls.Group.X448:
        key448 = x448.X448PrivateKey.generate()
        shared = key448.exchange(x448.X448PublicKey.from_public_bytes(theirs))
        return "x448", key448.public_key().public_bytes_raw(), shared
    curve = _CURVES[tls.Group(group)]
    point = ec.EllipticCurvePublicKey.from_encoded_point(curve, theirs)
    private = ec.generate_private_key(curve)
    _, ours = tls.encode_public_key(private.public_key())
    return curve.name, ours, private.exchange(ec.ECDH(), point)


def _uint16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _opaque16(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _extension(kind: int, value: bytes) -> bytes:
    return _uint16(kind) + _opaque16(value)
