"""The server side of TLS 1.3 for QUIC (RFC 8446 section 4, RFC 9001 section 4).

From the ClientHello to the ticket that follows the client's Finished, with certificates selected by
name and stateless resumption. Clients use aioquic's engine (`tls_client`); alerts and constants are
shared. `receive` takes CRYPTO data and returns messages; keys and transport parameters are passed
to `TlsHooks` meanwhile.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, NoReturn, Protocol

from aioquic import tls

from quicedge.client_auth.rules import ClientAuth, Identity, Rule
from quicedge.client_auth.verdict import RefusedError, Verdict
from quicedge.quic import client_hello as client
from quicedge.quic.anti_replay import REGISTER_LENGTH, EarlyDataGuard, EarlyDataUse, stated_age
from quicedge.quic.client_hello import (
    TLS_1_2,
    TLS_1_3,
    ClientHello,
    OfferedPsk,
    read_client_hello,
)
from quicedge.quic.client_proof import (
    certificate_request,
    check_proof,
    read_certificate_message,
)
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.frames import Epoch, FrameType
from quicedge.quic.key_exchange import DEFAULT_GROUPS, Group
from quicedge.quic.key_schedule import KeySchedule
from quicedge.quic.tickets import Session, Tickets, ticket_id
from quicedge.quic.tls import (
    SIGNATURE_NAMES,
    CertificateStore,
    ServerCertificate,
    handshake_message,
)

QUIC_TRANSPORT_PARAMETERS = 57
"""TLS extension (RFC 9001 section 8.2)."""
MAX_EARLY_DATA = 0xFFFFFFFF
"""The only value that QUIC allows (RFC 9001 section 4.6.1)."""

_CHACHA20 = tls.CipherSuite.CHACHA20_POLY1305_SHA256
_SUITES = (tls.CipherSuite.AES_128_GCM_SHA256, tls.CipherSuite.AES_256_GCM_SHA384, _CHACHA20)
"""In order of preference; every TLS 1.3 client has AES-128 (RFC 8446 section 9.1)."""
_RETRY_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()
"""Distinguishes a HelloRetryRequest from a ServerHello (RFC 8446 section 4.1.3)."""
_PSK_DHE_KE = 1
_TICKET_HEAD = struct.Struct("!II")
"""Lifetime in seconds and `ticket_age_add` of a NewSessionTicket (RFC 8446 section 4.6.1)."""

Messages = list[tuple[Epoch, bytes]]
"""Handshake messages and the epoch whose packets carry them."""


class TlsHooks(Protocol):
    """What TLS reports to QUIC while it processes a message."""

    version: int
    """The QUIC version in use."""

    def on_secret(
        self, epoch: Epoch, suite: tls.CipherSuite, secret: bytes, *, sending: bool
    ) -> None:
        """A traffic secret is available; keys are derived from it."""

    def on_peer_parameters(self, parameters: bytes | None, alpn: str | None) -> bytes:
        """The peer's transport parameters, None if it sent none; returns ours."""


class AlertUnrecognizedName(tls.Alert):
    """There is no certificate for the name that the client asks for (RFC 6066 section 3)."""

    description = tls.AlertDescription.unrecognized_name


class AlertClientCertificate(tls.Alert):
    """The client's certificate, or the lack of it, is not accepted."""

    def __init__(self, refused: RefusedError) -> None:
        super().__init__(f"Client certificate: {refused}")
        self.description = tls.AlertDescription(refused.verdict.alert)


class _State(Enum):
    EXPECT_HELLO = 0
    EXPECT_CERTIFICATE = 1
    EXPECT_CERTIFICATE_VERIFY = 2
    EXPECT_FINISHED = 3
    COMPLETE = 4


class _Retried(NamedTuple):
    """A HelloRetryRequest that was sent."""

    group: Group
    suite: tls.CipherSuite
    hello: ClientHello
    """The first ClientHello, without its key shares and ticket."""
    transcript: bytes
    """The transcript before the second ClientHello."""

    def check_answer(self, hello: ClientHello, suite: tls.CipherSuite) -> None:
        """Check the changes in the second ClientHello (RFC 8446 section 4.1.2)."""
        if [*(hello.key_shares or ())] != [self.group.number]:
            raise tls.AlertIllegalParameter("ClientHello lacks the requested key share")
        if suite != self.suite:
            raise tls.AlertIllegalParameter("Second ClientHello selects another cipher suite")
        # RFC 8446 section 4.2.10: a client MUST NOT include it in its followup ClientHello.
        if hello.early_data:
            raise tls.AlertIllegalParameter("ClientHello offers early data again")
        for name in _UNCHANGED:
            if getattr(hello, name) != getattr(self.hello, name):
                raise tls.AlertIllegalParameter(f"Second ClientHello has other {name}")
        if _parameters_of(hello) != _parameters_of(self.hello):
            raise tls.AlertIllegalParameter("Second ClientHello has other transport parameters")


_UNCHANGED = (
    "random", "session_id", "cipher_suites", "compression_methods", "server_name",
    "supported_groups", "signature_algorithms", "alpn_protocols", "supported_versions",
    "key_exchange_modes", "certificate_compression",
)  # fmt: skip
"""Members of a ClientHello that are the same after a HelloRetryRequest. Extensions that we do not
know may have rules of their own."""


class ServerTls:
    """One handshake. `random(n)` returns n random bytes."""

    def __init__(
        self,
        hooks: TlsHooks,
        *,
        certificates: CertificateStore,
        alpn_protocols: list[str],
        cipher_suites: list[tls.CipherSuite] | None,
        groups: Sequence[Group] = DEFAULT_GROUPS,
        random: Callable[[int], bytes],
        tickets: Tickets | None = None,
        early_data: tuple[EarlyDataGuard, bytes] | None = None,
        client_auth: ClientAuth | None = None,
    ) -> None:
        """`groups`: most preferred first. `early_data`: the replay guard and its stamp in tickets;
        None rejects 0-RTT data. `client_auth`: the hosts that ask clients for certificates."""
        self._hooks = hooks
        self._store = certificates
        self._alpn_protocols = alpn_protocols
        self._cipher_suites = cipher_suites or _SUITES
        self._groups = groups
        self._random = random
        self._tickets = tickets
        self._early_data = early_data
        self._client_auth = client_auth
        self._rule: Rule | None = None
        """That of the host: whether the client is asked for a certificate."""
        self._receiving_secret = b""
        self._client_chain: list[bytes] = []
        """What the client claims to be, until it has proved it."""
        self.identity: Identity | None = None
        """Who the client has proved to be, on a host with a rule."""
        self.refused: RefusedError | None = None
        """Why the client's certificate was not accepted."""
        self._state = _State.EXPECT_HELLO
        self._received = b""
        self._now = 0.0
        self._offered: tuple[Session, bytes, int] | None = None
        """The session that the client offers to resume, its ticket and obfuscated ticket age."""
        self._takes_psk = False
        self._key_schedule: KeySchedule
        self._expected_finished = b""
        self._application_secret = b""
        self.client_random = b""
        self.alpn: str | None = None
        self.alpn_offered: list[bytes] | None = None
        """What the client offers, once its ClientHello is parsed."""
        self._retried: _Retried | None = None
        self.server_name: str | None = None
        self.certificate: ServerCertificate | None = certificates.default
        self.group: Group | None = None
        """The key exchange group, once negotiated."""
        self.signature: str | None = None
        """Name of the algorithm that our certificate's key signed with; None: it did not."""
        self.compression: str | None = None
        """How the certificate was compressed; None: none was sent."""
        self.resumed = False
        self.early_data_accepted = False

    @property
    def is_complete(self) -> bool:
        return self._state is _State.COMPLETE

    @property
    def hello_retried(self) -> bool:
        """Whether a HelloRetryRequest was sent."""
        return self._retried is not None

    @property
    def early_data_use(self) -> EarlyDataUse | None:
        """The ticket use recorded when early data was accepted."""
        if not self.early_data_accepted or self._offered is None:
            return None
        session, ticket, _ = self._offered
        return EarlyDataUse(session.early_data[:REGISTER_LENGTH], ticket_id(ticket))

    def receive(self, epoch: Epoch, data: bytes, now: float) -> Messages:
        """Take CRYPTO data of an epoch, in order; raises `aioquic.tls.Alert`."""
        self._now = now
        self._received += data
        out: Messages = []
        received = self._received
        end = len(received)
        at = 0
        while end - at >= 4:
            stop = at + 4 + int.from_bytes(received[at + 1 : at + 4], "big")
            if stop > end:
                break
            self._received = received[stop:]
            self._handle(epoch, received[at:stop], out)
            at = stop
        return out

    def _handle(self, epoch: Epoch, message: bytes, out: Messages) -> None:
        kind = message[0]
        if (
            self._state is _State.EXPECT_HELLO
            and kind == tls.HandshakeType.CLIENT_HELLO
            and epoch is Epoch.INITIAL
        ):
            self._handle_hello(message, out)
        elif (
            self._state is _State.EXPECT_FINISHED
            and kind == tls.HandshakeType.FINISHED
            and epoch is Epoch.HANDSHAKE
        ):
            self._handle_finished(message, out)
        elif (
            self._state is _State.EXPECT_CERTIFICATE
            and kind == tls.HandshakeType.CERTIFICATE
            and epoch is Epoch.HANDSHAKE
        ):
            self._handle_certificate(message)
        elif (
            self._state is _State.EXPECT_CERTIFICATE_VERIFY
            and kind == tls.HandshakeType.CERTIFICATE_VERIFY
            and epoch is Epoch.HANDSHAKE
        ):
            self._handle_certificate_verify(message)
        else:
            raise tls.AlertUnexpectedMessage(f"Unexpected TLS message of type {kind}")

    def _handle_hello(self, message: bytes, out: Messages) -> None:
        hello = read_client_hello(message)
        self.server_name = hello.server_name
        self.certificate = certificate = self._store.select(hello.server_name)
        if certificate is None:
            if hello.server_name is None:
                # RFC 8446 section 9.2: servers that require the extension SHOULD say so.
                raise tls.AlertMissingExtension("ClientHello has no server name")
            raise AlertUnrecognizedName("No certificate for the server name")
        suite = self._negotiate(hello)
        if self._retried is None and (wanted := self._group_to_ask_for(hello)) is not None:
            out.append((Epoch.INITIAL, self._ask_for(wanted, suite, hello, message)))
            return
        if self._retried is not None:
            self._retried.check_answer(hello, suite)
        parameters = self._hooks.on_peer_parameters(_parameters_of(hello), self.alpn)
        if self._client_auth is not None:
            self._rule = self._client_auth.rule_for(hello.server_name)
        # A client proves who it is anew in each handshake: a ticket would still be good when its
        # certificate is revoked, or was issued before there was a rule.
        if self._rule is not None or not self._resume(hello, message, suite):
            self._key_schedule = KeySchedule(suite)
            self._key_schedule.extract(None)
            self._key_schedule.update_hash(self._transcript_before + message)
        schedule = self._key_schedule
        share, shared_key = self._exchange(hello)
        hooks = self._hooks

        self._send(out, Epoch.INITIAL, self._server_hello(hello, suite, share))
        schedule.extract(shared_key)
        sending = schedule.derive_secret(b"s hs traffic")
        receiving = schedule.derive_secret(b"c hs traffic")
        hooks.on_secret(Epoch.HANDSHAKE, suite, sending, sending=True)
        hooks.on_secret(Epoch.HANDSHAKE, suite, receiving, sending=False)
        self._send(out, Epoch.HANDSHAKE, self._encrypted_extensions(parameters))
        if self._rule is not None:
            self._send(out, Epoch.HANDSHAKE, certificate_request(self._rule.verifier.authorities))
        if not self.resumed:
            self.compression, chain = certificate.message_for(hello.certificate_compression or ())
            self._send(out, Epoch.HANDSHAKE, chain)
            self._send(out, Epoch.HANDSHAKE, self._certificate_verify(certificate, hello))
        self._send(out, Epoch.HANDSHAKE, _finished(schedule, sending))

        schedule.extract(None)
        hooks.on_secret(Epoch.ONE_RTT, suite, schedule.derive_secret(b"s ap traffic"), sending=True)
        # RFC 9001 section 5.7: 1-RTT packets are not read before the handshake is complete.
        self._application_secret = schedule.derive_secret(b"c ap traffic")
        self._receiving_secret = receiving
        if self._rule is None:
            self._expect_finished()
        else:
            self._state = _State.EXPECT_CERTIFICATE

    def _expect_finished(self) -> None:
        schedule = self._key_schedule
        self._expected_finished = _finished(schedule, self._receiving_secret)
        schedule.update_hash(self._expected_finished)
        self._state = _State.EXPECT_FINISHED

    def _handle_certificate(self, message: bytes) -> None:
        rule = self._rule
        assert rule is not None
        self._client_chain = read_certificate_message(message)
        self._key_schedule.update_hash(message)
        if self._client_chain:
            self._state = _State.EXPECT_CERTIFICATE_VERIFY
            return
        if rule.is_required:
            self._refuse(RefusedError(Verdict.REQUIRED, "none was sent"))
        self.identity = Identity(rule, self.server_name)
        self._expect_finished()

    def _handle_certificate_verify(self, message: bytes) -> None:
        rule = self._rule
        assert rule is not None
        signed = self._key_schedule.certificate_verify_data(tls.CLIENT_CONTEXT_STRING)
        try:
            check_proof(message, self._client_chain[0], signed)
            certificate = rule.verifier.verify(self._client_chain)
        except RefusedError as refused:
            self._refuse(refused)
        self._key_schedule.update_hash(message)
        self.identity = Identity(rule, self.server_name, certificate)
        self._expect_finished()

    def _refuse(self, refused: RefusedError) -> NoReturn:
        self.refused = refused
        raise AlertClientCertificate(refused)

    def _handle_finished(self, message: bytes, out: Messages) -> None:
        if not hmac.compare_digest(message, self._expected_finished):
            raise tls.AlertDecryptError("Finished does not verify")
        suite = self._key_schedule.cipher_suite
        self._hooks.on_secret(Epoch.ONE_RTT, suite, self._application_secret, sending=False)
        if self._tickets is not None and self._takes_psk and self._rule is None:
            out.append((Epoch.ONE_RTT, self._new_session_ticket(self._tickets)))
        self._state = _State.COMPLETE

    def _send(self, out: Messages, epoch: Epoch, message: bytes) -> None:
        self._key_schedule.update_hash(message)
        out.append((epoch, message))

    # --- negotiation ----------------------------------------------------------------------------

    def _negotiate(self, hello: ClientHello) -> tls.CipherSuite:
        """Check mandatory extensions; negotiate application protocol and cipher suite."""
        if TLS_1_3 not in (hello.supported_versions or ()):
            raise tls.AlertProtocolVersion("No supported protocol version")
        # RFC 8446 section 4.1.2: this vector MUST contain exactly one byte, set to zero.
        if hello.compression_methods != b"\0":
            raise tls.AlertIllegalParameter("ClientHello offers compression")
        # RFC 8446 section 9.2: servers receiving a ClientHello which does not conform to these
        # requirements MUST abort the handshake with a "missing_extension" alert.
        if hello.key_shares is None or hello.supported_groups is None:
            raise tls.AlertMissingExtension("ClientHello has no key share or no groups")
        # RFC 8446 section 4.2.8: clients MUST NOT offer shares for groups that they do not list.
        if not hello.key_shares.keys() <= set(hello.supported_groups):
            raise tls.AlertIllegalParameter("A key share is of a group that was not offered")
        if hello.pre_shared_key is None and hello.signature_algorithms is None:
            raise tls.AlertMissingExtension("ClientHello has no signature algorithms")
        # RFC 8446 section 4.2.9: if clients offer "pre_shared_key" without a
        # "psk_key_exchange_modes" extension, servers MUST abort the handshake.
        if hello.pre_shared_key is not None and hello.key_exchange_modes is None:
            raise tls.AlertMissingExtension("ClientHello has no key exchange modes")
        # RFC 9001 section 8.4: QUIC has no middlebox compatibility mode.
        if hello.session_id:
            raise TransportError(
                ErrorCode.PROTOCOL_VIOLATION,
                FrameType.CRYPTO,
                "ClientHello has a non-empty legacy_session_id",
            )
        suite = _cipher_suite(self._cipher_suites, hello)
        self.alpn_offered = hello.alpn_protocols or []
        self.alpn = _alpn(self._alpn_protocols, hello)
        self._takes_psk = _PSK_DHE_KE in (hello.key_exchange_modes or b"")
        self.client_random = hello.random
        return suite

    def _group_to_ask_for(self, hello: ClientHello) -> Group | None:
        """The group to request a key share of; None if the client sent one, or supports none.

        A share of a less preferred group will do: another round trip costs the client more.
        """
        shares = hello.key_shares or {}
        offered = hello.supported_groups or ()
        wanted = None
        for group in self._groups:
            if group.number in shares:
                return None
            if wanted is None and group.number in offered:
                wanted = group
        return wanted

    def _ask_for(
        self, group: Group, suite: tls.CipherSuite, hello: ClientHello, message: bytes
    ) -> bytes:
        """A HelloRetryRequest (RFC 8446 section 4.1.4), in answer to a ClientHello."""
        extensions = _WITH_VERSION + _extension(client.KEY_SHARE, _uint16(group.number))
        request = _hello_message(_RETRY_RANDOM, hello.session_id, suite, extensions)
        digest = hashlib.new(tls.cipher_suite_hash(suite).name, message).digest()
        # RFC 8446 section 4.4.1: a hash of the first ClientHello takes its place.
        transcript = handshake_message(tls.HandshakeType.MESSAGE_HASH, digest) + request
        hello.key_shares = hello.pre_shared_key = None
        self._retried = _Retried(group, suite, hello, transcript)
        return request

    @property
    def _transcript_before(self) -> bytes:
        """The transcript before the ClientHello being answered."""
        return b"" if self._retried is None else self._retried.transcript

    def _resume(self, hello: ClientHello, message: bytes, suite: tls.CipherSuite) -> bool:
        """Resume the session of a ticket, if valid, with its secret; returns whether it is."""
        offered = hello.pre_shared_key
        if offered is None or not self._takes_psk:
            return False
        session = self._session_of(offered)
        if session is None or session.cipher_suite != suite:
            return False
        schedule = KeySchedule(suite)
        schedule.extract(session.resumption_secret)
        binder_key = schedule.derive_secret(b"res binder")
        schedule.update_hash(self._transcript_before + message[: offered.binders_at])
        # RFC 8446 section 4.2.11: prior to accepting PSK key establishment, the server MUST
        # validate the corresponding binder value. If it does not validate, the server MUST abort.
        if not hmac.compare_digest(schedule.finished_verify_data(binder_key), offered.binder):
            raise tls.AlertDecryptError("PSK binder does not verify")
        schedule.update_hash(message[offered.binders_at :])
        self._key_schedule = schedule
        self._offered = session, offered.identity, offered.obfuscated_age
        self.resumed = True
        if hello.early_data and self._admit_early_data(session, offered):
            self.early_data_accepted = True
            secret = schedule.derive_secret(b"c e traffic")
            self._hooks.on_secret(Epoch.ZERO_RTT, suite, secret, sending=False)
        return True

    def _session_of(self, offered: OfferedPsk) -> Session | None:
        if self._tickets is None:
            return None
        session = self._tickets.open(offered.identity, self._now)
        # RFC 8446 section 4.2.11 lets a server ignore a session; one of another name could show
        # the client a site under a certificate that does not cover it.
        if (
            session is None
            or session.version != self._hooks.version
            or session.server_name != self.server_name
            or session.alpn != self.alpn
        ):
            return None
        return session

    def _admit_early_data(self, session: Session, offered: OfferedPsk) -> bool:
        if self._early_data is None:
            return False
        guard, stamp = self._early_data
        age = stated_age(offered.obfuscated_age, session.age_add)
        return guard.admit(session, offered.identity, age, stamp, self._now)

    def _exchange(self, hello: ClientHello) -> tuple[bytes, bytes]:
        """Our key share and the shared secret, for the most preferred share of the client."""
        shares = hello.key_shares or {}
        for group in self._groups:
            theirs = shares.get(group.number)
            if theirs is None:
                continue
            try:
                ours, shared = group.agree(theirs)
            except ValueError:
                raise tls.AlertIllegalParameter("ClientHello has an invalid key share") from None
            self.group = group
            return _EXTENSION.pack(group.number, len(ours)) + ours, shared
        raise tls.AlertHandshakeFailure("No supported key share")

    # --- messages -------------------------------------------------------------------------------

    def _server_hello(self, hello: ClientHello, suite: tls.CipherSuite, share: bytes) -> bytes:
        extensions = _WITH_VERSION + _extension(client.KEY_SHARE, share)
        if self.resumed:
            extensions += _WITH_PSK
        return _hello_message(self._random(32), hello.session_id, suite, extensions)

    def _encrypted_extensions(self, parameters: bytes) -> bytes:
        extensions = _alpn_extension(self.alpn or "")
        extensions += _extension(QUIC_TRANSPORT_PARAMETERS, parameters)
        if self.early_data_accepted:
            extensions += _extension(client.EARLY_DATA, b"")
        return handshake_message(tls.HandshakeType.ENCRYPTED_EXTENSIONS, _opaque16(extensions))

    def _certificate_verify(self, certificate: ServerCertificate, hello: ClientHello) -> bytes:
        offered = hello.signature_algorithms or ()
        algorithm = next((known for known in certificate.signatures if known in offered), None)
        if algorithm is None:
            raise tls.AlertHandshakeFailure("No supported signature algorithm")
        self.signature = SIGNATURE_NAMES[algorithm]
        key: Any = certificate.private_key
        signature = key.sign(
            self._key_schedule.certificate_verify_data(tls.SERVER_CONTEXT_STRING),
            *certificate.signatures[algorithm],
        )
        return handshake_message(
            tls.HandshakeType.CERTIFICATE_VERIFY,
            _EXTENSION.pack(algorithm, len(signature)) + signature,
        )

    def _new_session_ticket(self, tickets: Tickets) -> bytes:
        stamp = self._early_data[1] if self._early_data is not None else b""
        nonce = b"\0"  # there is one ticket per connection
        age_add = int.from_bytes(self._random(4), "big")
        schedule = self._key_schedule
        session = Session(
            version=self._hooks.version,
            cipher_suite=schedule.cipher_suite,
            resumption_secret=schedule.resumption_secret(nonce),
            server_name=self.server_name,
            alpn=self.alpn,
            age_add=age_add,
            issued_at=self._now,
            early_data=stamp,
        )
        body = b"%b%c%b%b%b" % (
            _TICKET_HEAD.pack(int(tickets.lifetime), age_add),
            len(nonce), nonce,
            _opaque16(tickets.seal(session, self._now)),
            _TAKES_EARLY_DATA if stamp else _NO_EXTENSIONS,
        )  # fmt: skip
        return handshake_message(tls.HandshakeType.NEW_SESSION_TICKET, body)


def _parameters_of(hello: ClientHello) -> bytes | None:
    """The client's transport parameters."""
    return hello.others.get(QUIC_TRANSPORT_PARAMETERS)


def _hello_message(
    random: bytes, session_id: bytes, suite: tls.CipherSuite, extensions: bytes
) -> bytes:
    body = b"%b%b%c%b%b\0%b" % (
        _LEGACY_VERSION, random, len(session_id), session_id, _uint16(suite),
        _opaque16(extensions),
    )  # fmt: skip
    return handshake_message(tls.HandshakeType.SERVER_HELLO, body)


def _finished(schedule: KeySchedule, secret: bytes) -> bytes:
    return handshake_message(tls.HandshakeType.FINISHED, schedule.finished_verify_data(secret))


def _cipher_suite(supported: Sequence[tls.CipherSuite], hello: ClientHello) -> tls.CipherSuite:
    offered = hello.cipher_suites
    common = [suite for suite in _SUITES if suite in offered and suite in supported]
    if not common:
        raise tls.AlertHandshakeFailure("No supported cipher suite")
    # A client that prefers ChaCha20 has no AES in hardware: it costs it more than us.
    if _CHACHA20 in common and next(suite for suite in offered if suite in common) == _CHACHA20:
        return _CHACHA20
    return common[0]


def _alpn(supported: list[str], hello: ClientHello) -> str:
    offered = hello.alpn_protocols or []
    for protocol in supported:
        if protocol.encode("ascii") in offered:
            return protocol
    # RFC 9001 section 8.1: endpoints MUST immediately close a connection with a
    # no_application_protocol TLS alert if an application protocol is not negotiated.
    raise tls.AlertNoApplicationProtocol("No common ALPN protocols")


def _uint16(value: int) -> bytes:
    return value.to_bytes(2, "big")


_EXTENSION = struct.Struct("!HH")
"""A number and the length of what follows: extensions, key shares, signatures."""


def _opaque16(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _extension(kind: int, value: bytes) -> bytes:
    return _EXTENSION.pack(kind, len(value)) + value


@cache
def _alpn_extension(protocol: str) -> bytes:
    """The protocol that was chosen: one of ours, so that they are few."""
    name = protocol.encode("ascii")
    return _extension(client.ALPN, _opaque16(bytes((len(name),)) + name))


_LEGACY_VERSION = _uint16(TLS_1_2)
_NO_EXTENSIONS = _opaque16(b"")
_TAKES_EARLY_DATA = _opaque16(_extension(client.EARLY_DATA, MAX_EARLY_DATA.to_bytes(4, "big")))
"""Extensions of a NewSessionTicket that permits 0-RTT data."""
_WITH_VERSION = _extension(client.SUPPORTED_VERSIONS, _uint16(TLS_1_3))
_WITH_PSK = _extension(client.PRE_SHARED_KEY, _uint16(0))
"""The client's first pre-shared key is selected."""
