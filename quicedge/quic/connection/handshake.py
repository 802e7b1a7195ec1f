"""The handshake: TLS, keys of each epoch, transport parameters and version negotiation.

TLS engines are `ServerTls` (ours) and `ClientTls` (aioquic's). `settle` releases handshake-only
state once the handshake is confirmed; the negotiated values stay readable.
"""

from __future__ import annotations

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration

from quicedge.client_auth.rules import Identity
from quicedge.client_auth.verdict import RefusedError
from quicedge.quic.anti_replay import EarlyDataUse
from quicedge.quic.connection.key_update import KeyPhases
from quicedge.quic.connection.offer import Offer
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.frames import Epoch, FrameType
from quicedge.quic.key_exchange import Group
from quicedge.quic.packet import VERSION_1, VERSION_2
from quicedge.quic.protection import PacketKeys, initial_keys
from quicedge.quic.tls import ServerCertificate
from quicedge.quic.tls_client import ClientTls, remembered_parameters
from quicedge.quic.tls_server import ServerTls
from quicedge.quic.transport_parameters import (
    ParameterError,
    TransportParameters,
    VersionInformation,
)

_COMPATIBLE = frozenset((VERSION_1, VERSION_2))
"""RFC 9369 section 4: versions 1 and 2 are compatible with each other."""
_SECRET_LABELS = {
    (Epoch.ZERO_RTT, True): "CLIENT_EARLY_TRAFFIC_SECRET",
    (Epoch.HANDSHAKE, True): "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    (Epoch.HANDSHAKE, False): "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    (Epoch.ONE_RTT, True): "CLIENT_TRAFFIC_SECRET_0",
    (Epoch.ONE_RTT, False): "SERVER_TRAFFIC_SECRET_0",
}
"""NSS key log labels by epoch and whether the client sends with the secret."""


class Handshake:
    """A handshake of either role.

    Call `start` first (a server on the client's first Initial packet), then `receive_crypto` with
    contiguous CRYPTO data. After each, send and clear `output`, and check `remote` and
    `is_complete`. Call `settle` once the handshake is confirmed, `close` when the connection ends.
    Invariant: `remote` is only set to validated transport parameters.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        version: int,
        original_destination_cid: bytes,
        retry_source_cid: bytes | None,
        offer: Offer,
    ) -> None:
        self._configuration = configuration
        self.is_client = configuration.is_client
        self.version = version
        self.packet_version = version
        """Version of the packet being processed."""
        self.original_destination_cid = original_destination_cid
        self.retry_source_cid = retry_source_cid
        self.remote_source_cid: bytes | None = None
        """Source Connection ID of the peer's first packet."""
        self._offer = offer
        self.tls: ServerTls | ClientTls | None = None
        self._initial_cid = b""
        self._initial: dict[int, tuple[PacketKeys, PacketKeys]] | None = {}
        self._read: list[PacketKeys | None] = [None, None, None, None]
        self._write: list[PacketKeys | None] = [None, None, None, None]
        self.phases = KeyPhases()
        """The 1-RTT keys."""
        self.local: bytes = b""
        """Our transport parameters as encoded on the wire."""
        self.remote: TransportParameters | None = None
        self.remote_raw = b""
        self.remembered: TransportParameters | None = None
        """Remembered parameters of the server that apply to 0-RTT data (clients)."""
        self.is_complete = False
        self.is_confirmed = False
        self.negotiated_incompatibly = False
        """Whether the version was chosen in response to a Version Negotiation packet."""
        self._version_agreed = False
        self.read_secrets = 0
        """Number of read secrets provided by TLS so far."""
        self.output: list[tuple[Epoch, bytes]] = []
        """Handshake messages to send, by epoch."""

    def start(self, destination_cid: bytes, now: float) -> None:
        """Start with the Destination Connection ID of the client's first packet, which determines
        the Initial keys."""
        self.use_initial_cid(destination_cid)
        if not self.is_client:
            self.tls = self._offer.make_server_tls(self)
        else:
            self.tls = engine = self._offer.make_client_tls(self, self.encode_parameters())
            remembered = remembered_parameters(engine.session)
            if remembered is not None:
                self.remembered = TransportParameters.decode(remembered)
            self.output += engine.start()

    def use_initial_cid(self, destination_cid: bytes) -> None:
        self._initial_cid = destination_cid
        self._initial = {}

    @property
    def versions(self) -> list[int]:
        """Supported versions."""
        return self._configuration.supported_versions

    @property
    def alpn_protocols(self) -> list[str]:
        """Supported application protocols."""
        return self._configuration.alpn_protocols or []

    # --- keys -----------------------------------------------------------------------------------

    def _initial_pair(self, version: int) -> tuple[PacketKeys, PacketKeys] | None:
        """Initial read and write keys, derived on demand per version."""
        if self._initial is None:
            return None
        pair = self._initial.get(version)
        if pair is None:
            client, server = initial_keys(self._initial_cid, version)
            pair = self._initial[version] = (server, client) if self.is_client else (client, server)
        return pair

    def read_keys(self, epoch: Epoch, version: int) -> PacketKeys | None:
        """Keys to open packets of the peer; those for 1-RTT are in `phases`."""
        if epoch is Epoch.INITIAL:
            pair = self._initial_pair(version)
            return pair[0] if pair is not None else None
        return self._read[epoch]

    def write_keys(self, epoch: Epoch) -> PacketKeys | None:
        if epoch is Epoch.INITIAL:
            pair = self._initial_pair(self.version)
            return pair[1] if pair is not None else None
        return self.phases.send if epoch is Epoch.ONE_RTT else self._write[epoch]

    def discard_keys(self, epoch: Epoch) -> None:
        """RFC 9001 section 4.9."""
        if epoch is Epoch.INITIAL:
            self._initial = None
        else:
            self._read[epoch] = self._write[epoch] = None

    @property
    def suite(self) -> tls.CipherSuite | None:
        keys = self.phases.send or self.phases.recv
        return keys.suite if keys is not None else None

    def on_secret(
        self, epoch: Epoch, suite: tls.CipherSuite, secret: bytes, *, sending: bool
    ) -> None:
        if self.is_client and not self._version_agreed and epoch is not Epoch.ZERO_RTT:
            # RFC 9368 section 2.3: the server's first Initial indicates the version it chose.
            self.version = self.packet_version
            self._version_agreed = True
        self._log_secret(epoch, secret, sending=sending)
        self.read_secrets += not sending
        keys = PacketKeys(suite, secret, self.version)
        if epoch is not Epoch.ONE_RTT:
            (self._write if sending else self._read)[epoch] = keys
        elif sending:
            self.phases.send = keys
            # RFC 9001 section 4.9.3: clients SHOULD discard 0-RTT keys now.
            if self.is_client:
                self._write[Epoch.ZERO_RTT] = None
        else:
            self.phases.recv = keys

    def _log_secret(self, epoch: Epoch, secret: bytes, *, sending: bool) -> None:
        file = self._configuration.secrets_log_file
        if file is not None and self.tls is not None:
            label = _SECRET_LABELS[epoch, sending is self.is_client]
            file.write(f"{label} {self.tls.client_random.hex()} {secret.hex()}\n")
            file.flush()

    # --- TLS ------------------------------------------------------------------------------------

    def receive_crypto(self, epoch: Epoch, data: bytes, now: float) -> None:
        """Process contiguous CRYPTO data; raises TransportError."""
        if self.tls is None:
            # RFC 9001 section 6: a server expects nothing more, and KeyUpdate least of all.
            raise TransportError(
                ErrorCode.CRYPTO_ERROR + tls.AlertDescription.unexpected_message,
                FrameType.CRYPTO,
                "Unexpected TLS message",
            )
        try:
            self.output += self.tls.receive(epoch, data, now)
        except tls.Alert as alert:
            raise TransportError(
                ErrorCode.CRYPTO_ERROR + int(alert.description), FrameType.CRYPTO, str(alert)
            ) from alert
        self.is_complete = self.tls.is_complete

    def on_peer_parameters(self, parameters: bytes | None, alpn: str | None) -> bytes:
        if parameters is None:
            # RFC 9001 section 8.2: MUST be closed with missing_extension.
            raise TransportError(
                ErrorCode.CRYPTO_ERROR + tls.AlertDescription.missing_extension,
                FrameType.CRYPTO,
                "No QUIC transport parameters received",
            )
        self.remote_raw = parameters
        try:
            self.remote = remote = TransportParameters.decode(parameters)
            self._check_ids(remote)
            information = remote.version_information
            if information is not None:
                self._check_versions(information)
        except ParameterError as error:
            raise TransportError(
                ErrorCode.TRANSPORT_PARAMETER_ERROR, FrameType.CRYPTO, str(error)
            ) from error
        if self.is_client:
            self._check_negotiation(information)
            return b""
        if information is not None:
            self._choose_version(information)
        return self.encode_parameters()

    def _check_ids(self, remote: TransportParameters) -> None:
        """RFC 9000 section 7.3: authenticating connection IDs."""
        if remote.initial_source_connection_id != self.remote_source_cid:
            raise ParameterError("initial_source_connection_id does not match")
        if not self.is_client:
            found = remote.server_only()
            if found is not None:
                raise ParameterError(f"{found} is not allowed for clients")
            return
        if remote.original_destination_connection_id != self.original_destination_cid:
            raise ParameterError("original_destination_connection_id does not match")
        if remote.retry_source_connection_id != self.retry_source_cid:
            raise ParameterError("retry_source_connection_id does not match")
        # Section 18.2: a server with an empty connection ID cannot have a preferred address.
        if remote.preferred_address is not None and not self.remote_source_cid:
            raise ParameterError("preferred_address is not allowed with an empty connection ID")

    def _check_versions(self, information: VersionInformation) -> None:
        """RFC 9368 section 4."""
        if not self.is_client and information.chosen not in information.available:
            raise ParameterError("version_information's chosen version is not available")
        if information.chosen != self.packet_version:
            raise TransportError(
                ErrorCode.VERSION_NEGOTIATION_ERROR,
                FrameType.CRYPTO,
                "version_information does not match the version in use",
            )

    def _check_negotiation(self, information: VersionInformation | None) -> None:
        """RFC 9368 section 4: an attacker may have sent the Version Negotiation packet."""
        if not self.negotiated_incompatibly:
            return
        ours = self._configuration.supported_versions
        available = information.available if information is not None else ()
        if next((version for version in ours if version in available), None) != self.version:
            raise TransportError(
                ErrorCode.VERSION_NEGOTIATION_ERROR,
                FrameType.CRYPTO,
                "Another version should have been negotiated",
            )

    def _choose_version(self, information: VersionInformation) -> None:
        """The first of the client's versions that we support (RFC 9368 section 2.3)."""
        supported = self._configuration.supported_versions
        for version in information.available:
            if version == self.version:
                return
            if version in supported and {version, self.version} <= _COMPATIBLE:
                self.version = version
                return

    def encode_parameters(self) -> bytes:
        """Our transport parameters."""
        parameters = self._offer.make_parameters()
        parameters.version_information = VersionInformation(
            self.version, tuple(self._configuration.supported_versions)
        )
        if not self.is_client:
            parameters.original_destination_connection_id = self.original_destination_cid
            parameters.retry_source_connection_id = self.retry_source_cid
        self.local = parameters.encode()
        return self.local

    def settle(self) -> None:
        """Release secrets and TLS state; negotiated values stay readable."""
        engine = self.tls
        if isinstance(engine, ServerTls):
            self.agreed = Negotiated(engine)
            self.tls = None

    agreed: Negotiated | None = None

    def close(self) -> None:
        """Release reference cycles once the connection is terminated."""
        if self.tls is not None and self.agreed is None:
            self.agreed = Negotiated(self.tls)
        self.tls = None

    # --- negotiated values: None or False until they are known -----------------------------------

    @property
    def alpn(self) -> str | None:
        """The application protocol."""
        facts = self.facts
        return facts.alpn if facts is not None else None

    @property
    def cipher(self) -> str | None:
        """Name of the cipher suite."""
        suite = self.suite
        return suite.name if suite is not None else None

    @property
    def group(self) -> Group | None:
        """The key exchange group (servers only)."""
        facts = self.facts
        return facts.group if facts is not None else None

    @property
    def hello_retried(self) -> bool:
        """Whether the client was sent a HelloRetryRequest (servers only)."""
        facts = self.facts
        return facts.hello_retried if facts is not None else False

    @property
    def server_name(self) -> str | None:
        """Server name in the ClientHello (servers only)."""
        facts = self.facts
        return facts.server_name if facts is not None else None

    @property
    def certificate(self) -> ServerCertificate | None:
        """The certificate sent (servers only)."""
        facts = self.facts
        return facts.certificate if facts is not None else None

    @property
    def identity(self) -> Identity | None:
        """Who the client has proved to be (servers only, on hosts with a rule)."""
        facts = self.facts
        return facts.identity if facts is not None else None

    @property
    def refused(self) -> RefusedError | None:
        """Why the client's certificate was not accepted (servers only)."""
        facts = self.facts
        return facts.refused if facts is not None else None

    @property
    def compression(self) -> str | None:
        """How our certificate was compressed; None: none was sent."""
        facts = self.facts
        return facts.compression if facts is not None else None

    @property
    def signature(self) -> str | None:
        """Name of the signature algorithm of our certificate's key; None: it did not sign."""
        facts = self.facts
        return facts.signature if facts is not None else None

    @property
    def resumed(self) -> bool:
        """Whether the session was resumed from a ticket."""
        facts = self.facts
        return facts.resumed if facts is not None else False

    @property
    def is_retried(self) -> bool:
        """Whether the server sent a Retry."""
        return self.retry_source_cid is not None

    @property
    def early_data_accepted(self) -> bool:
        """Whether 0-RTT data was accepted."""
        facts = self.facts
        return facts.early_data_accepted if facts is not None else False

    @property
    def early_data_use(self) -> EarlyDataUse | None:
        """The ticket use behind 0-RTT data; None without any or once the handshake is complete."""
        engine = self.tls
        if self.is_complete or not isinstance(engine, ServerTls):
            return None
        return engine.early_data_use

    @property
    def local_parameters(self) -> TransportParameters:
        """Transport parameters that we sent."""
        return TransportParameters.decode(self.local)

    @property
    def remote_parameters(self) -> TransportParameters:
        """Transport parameters of the peer; all unset until received."""
        return self.remote or TransportParameters()

    @property
    def facts(self) -> Negotiated | ServerTls | ClientTls | None:
        return self.agreed or self.tls


class Negotiated:
    """Negotiated values of a TLS handshake, without secrets."""

    __slots__ = (
        "alpn",
        "alpn_offered",
        "certificate",
        "compression",
        "early_data_accepted",
        "group",
        "hello_retried",
        "identity",
        "refused",
        "resumed",
        "server_name",
        "signature",
    )

    def __init__(self, engine: ServerTls | ClientTls) -> None:
        self.alpn = engine.alpn
        self.alpn_offered = engine.alpn_offered
        self.resumed = engine.resumed
        self.early_data_accepted = engine.early_data_accepted
        self.server_name: str | None = engine.server_name
        self.certificate: ServerCertificate | None = engine.certificate
        self.group: Group | None = engine.group
        self.hello_retried = engine.hello_retried
        self.compression = engine.compression
        self.identity: Identity | None = engine.identity
        self.refused: RefusedError | None = engine.refused
        self.signature = engine.signature

    early_data_use: EarlyDataUse | None = None
