"""Version Negotiation and Retry: what a server may answer to a client's first flight."""

from __future__ import annotations

from quicedge.quic.connection.connection_ids import RemoteConnectionIds
from quicedge.quic.connection.establishment import Establishment
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.packer import Packer
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.send_buffer import SendBuffer
from quicedge.quic.connection.spaces import PacketSpace
from quicedge.quic.frames import Epoch
from quicedge.quic.packet import LongPacket, parse_version_negotiation
from quicedge.quic.retry import is_authentic_retry


class NoCommonVersion(Exception):
    """The server supports no version that we support."""


class FirstFlight:
    """A client's first flight, until an authentic packet of the server arrives.

    Call the methods in that state only. Each answer is accepted at most once.
    """

    __slots__ = (
        "_establishment", "_handshake", "_has_retried", "_original_cid", "_packer", "_recovery",
        "_remote_ids", "_spaces", "_versions",
    )  # fmt: skip

    def __init__(
        self,
        *,
        versions: list[int],
        original_cid: bytes,
        handshake: Handshake,
        establishment: Establishment,
        spaces: dict[Epoch, PacketSpace],
        recovery: Recovery,
        remote_ids: RemoteConnectionIds,
        packer: Packer,
    ) -> None:
        self._versions = versions
        self._original_cid = original_cid
        self._handshake = handshake
        self._establishment = establishment
        self._spaces = spaces
        self._recovery = recovery
        self._remote_ids = remote_ids
        self._packer = packer
        self._has_retried = False

    def receive_version_negotiation(self, data: bytes, now: float) -> None:
        """Restart with a common version (RFC 9000 section 6.2); raises NoCommonVersion."""
        versions = parse_version_negotiation(data)
        handshake = self._handshake
        if handshake.negotiated_incompatibly or handshake.version in versions:
            return
        chosen = next((version for version in self._versions if version in versions), None)
        if chosen is None:
            raise NoCommonVersion
        handshake.negotiated_incompatibly = True
        handshake.version = chosen
        self._resend()
        self._spaces[Epoch.INITIAL].crypto_out = SendBuffer()
        self._establishment.start(now)

    def receive_retry(self, packet: bytes, header: LongPacket) -> None:
        """Send the first flight again with the server's token (RFC 9000 section 17.2.5.2)."""
        if (
            self._has_retried
            or header.source_cid == self._remote_ids.current.cid
            or not header.token
            or not is_authentic_retry(packet, self._original_cid, header.version)
        ):
            return
        self._has_retried = True
        self._handshake.retry_source_cid = header.source_cid
        self._remote_ids.redirect(header.source_cid)
        self._packer.token = header.token
        self._handshake.use_initial_cid(header.source_cid)
        self._resend()

    def _resend(self) -> None:
        for epoch in (Epoch.INITIAL, Epoch.ONE_RTT):
            self._recovery.resend_all(self._spaces[epoch])
