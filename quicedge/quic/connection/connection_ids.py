"""Connection IDs of both endpoints (RFC 9000 section 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import NamedTuple, Protocol

from quicedge.config.limits import ACTIVE_CONNECTION_IDS, MAX_RETIRED_CONNECTION_IDS
from quicedge.quic.connection.draft import Draft
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.events import ConnectionIdIssued, ConnectionIdRetired
from quicedge.quic.frames import FrameType, NewConnectionId, RetireConnectionId

MIN_STATELESS_RESET = 21
"""Minimum size of a stateless reset, in bytes (RFC 9000 section 10.3)."""


class ConnectionIdSource(Protocol):
    """Where connection IDs and their reset tokens come from (`quic.connection_id_issuer`)."""

    length: int
    """Of every connection ID, in bytes."""

    def new(self) -> bytes: ...

    def reset_token(self, connection_id: bytes) -> bytes: ...


class LocalConnectionIds:
    """IDs that the peer uses to address us.

    Set `peer_limit` from the transport parameters, then call `replenish` once the handshake is
    complete; retired IDs are replaced. Every ID issued and retired is reported by an event, which
    the router of datagrams must process before the next input.
    """

    __slots__ = (
        "_events", "_next_sequence", "_retire_prior_to", "_source", "active", "initial",
        "latest_used", "length", "peer_limit", "unannounced",
    )  # fmt: skip

    def __init__(self, source: ConnectionIdSource, events: EventQueue) -> None:
        self._source = source
        self._events = events
        self.length = source.length
        self.initial = source.new()
        """The first ID: Source Connection ID of the handshake."""
        self.active: dict[bytes, int] = {self.initial: 0}
        """Sequence numbers of issued and unretired IDs."""
        self.latest_used = self.initial
        """Destination of the peer's last non-probing packet."""
        self.peer_limit = 2
        self._next_sequence = 1
        self._retire_prior_to = 0
        self.unannounced: list[int] = []
        """Sequence numbers of those that the peer has still to be told of."""

    def issue_unframed(self) -> bytes:
        """Issue an ID that is sent outside a NEW_CONNECTION_ID frame (preferred address)."""
        cid = self._source.new()
        self.active[cid] = self._next_sequence
        self._next_sequence += 1
        self._events.append(ConnectionIdIssued(connection_id=cid))
        return cid

    def reset_token(self, cid: bytes) -> bytes:
        return self._source.reset_token(cid)

    def replenish(self) -> None:
        """Issue IDs up to the smaller of both limits."""
        while len(self.active) < min(ACTIVE_CONNECTION_IDS, self.peer_limit):
            self.unannounced.append(self._next_sequence)
            self.issue_unframed()

    def renew(self) -> None:
        """Issue other IDs in place of all active ones, which the peer is told to retire.

        RFC 9000 section 5.1.1: the peer's limit may be exceeded until it has done so. A peer that
        has not yet done so the last time keeps what it has.
        """
        if len(self.active) > ACTIVE_CONNECTION_IDS:
            return
        self._retire_prior_to = self._next_sequence
        for _ in range(min(ACTIVE_CONNECTION_IDS, self.peer_limit)):
            self.unannounced.append(self._next_sequence)
            self.issue_unframed()

    @property
    def has_frames(self) -> bool:
        return bool(self.unannounced)

    def write_frames(self, draft: Draft) -> bool:
        """Add NEW_CONNECTION_ID frames; whether all fitted."""
        while self.unannounced:
            sequence = self.unannounced[0]
            cid = next(cid for cid, number in self.active.items() if number == sequence)
            retire = min(self._retire_prior_to, sequence)
            frame = NewConnectionId(sequence, retire, cid, self._source.reset_token(cid))
            if not draft.add(frame.encode(), self._on_delivery, (sequence,)):
                return False
            del self.unannounced[0]
        return True

    def _on_delivery(self, delivered: bool, sequence: int) -> None:
        if not delivered and sequence in self.active.values() and (
            sequence not in self.unannounced
        ):  # fmt: skip
            self.unannounced.append(sequence)

    def receive_retire(self, sequence: int, packet_cid: bytes) -> None:
        """Process RETIRE_CONNECTION_ID from a packet with destination `packet_cid`."""
        if sequence >= self._next_sequence:
            raise TransportError(
                ErrorCode.PROTOCOL_VIOLATION,
                FrameType.RETIRE_CONNECTION_ID,
                "Cannot retire unknown connection ID",
            )
        cid = next((cid for cid, number in self.active.items() if number == sequence), None)
        if cid is None:
            return
        if cid == packet_cid:
            raise TransportError(
                ErrorCode.PROTOCOL_VIOLATION,
                FrameType.RETIRE_CONNECTION_ID,
                "Cannot retire current connection ID",
            )
        del self.active[cid]
        if sequence in self.unannounced:
            self.unannounced.remove(sequence)
        self._events.append(ConnectionIdRetired(connection_id=cid))
        self.replenish()


class RemoteConnectionId(NamedTuple):
    """An ID of the peer. `sequence` is None until the peer has chosen its first ID."""

    cid: bytes
    sequence: int | None
    reset_token: bytes | None = None


class RemoteConnectionIds:
    """IDs to address the peer with: the current one, spare ones, and those to retire.

    Invariant: `current` is neither spare nor retired. Before the peer's first packet is processed,
    only `redirect` may be called; `adopt` follows.
    """

    __slots__ = (
        "_retire_prior_to", "_seen", "current", "spare", "spin", "to_retire",
    )  # fmt: skip

    def __init__(self, first: bytes) -> None:
        self.current = RemoteConnectionId(first, None)
        self.spin = False
        """Spin bit of packets sent to `current` (RFC 9000 section 17.4)."""
        self.spare: list[RemoteConnectionId] = []
        self._seen: set[int] = {0}
        self._retire_prior_to = 0
        self.to_retire: list[int] = []
        """Sequence numbers of those that the peer has still to be told of."""

    def adopt(self, cid: bytes) -> None:
        """Use the Source Connection ID of the peer's first packet."""
        self.current = RemoteConnectionId(cid, 0, self.current.reset_token)

    def redirect(self, cid: bytes) -> None:
        """Use the Source Connection ID of a Retry packet."""
        self.current = RemoteConnectionId(cid, None)

    def use_token(self, token: bytes) -> None:
        """Set the reset token of the first ID, from the transport parameters."""
        self.current = RemoteConnectionId(self.current.cid, self.current.sequence, token)

    def add_preferred(self, cid: bytes, token: bytes) -> None:
        """Add the ID of the server's preferred address, sequence number 1."""
        self.spare.append(RemoteConnectionId(cid, 1, token))
        self._seen.add(1)

    def receive_new(
        self, frame: NewConnectionId, taken: Callable[[int], list[RemoteConnectionId]]
    ) -> None:
        """Process NEW_CONNECTION_ID. `taken(limit)` returns the IDs reserved by paths and releases
        those with a sequence number less than `limit`."""
        held = taken(0)
        self._check_reuse(frame, held)
        number = frame.sequence_number
        if frame.retire_prior_to <= self._retire_prior_to <= number:
            # Nothing is to be retired.
            if number not in self._seen:
                self.spare.append(
                    RemoteConnectionId(frame.connection_id, number, frame.reset_token)
                )
                self._seen.add(number)
                self._check_limit(held)
            return
        self._retire_prior_to = limit = max(frame.retire_prior_to, self._retire_prior_to)
        for known in [*self.spare, *taken(limit)]:
            if known.sequence is not None and known.sequence < limit:
                self.retire(known)
        self.spare = [known for known in self.spare if (known.sequence or 0) >= limit]
        if number < limit:
            # RFC 9000 section 19.15: MUST immediately be retired, unless that was done.
            if number not in self._seen:
                self.to_retire.append(number)
        elif number not in self._seen:
            self.spare.append(RemoteConnectionId(frame.connection_id, number, frame.reset_token))
            self._seen.add(number)
        self._seen = {seen for seen in self._seen if seen >= limit}
        if self.current.sequence is not None and self.current.sequence < limit:
            if not self.spare:
                raise self._error(ErrorCode.PROTOCOL_VIOLATION, "No connection ID is left")
            self.use(self.spare.pop(0))
        self._check_limit(taken(0))
        # RFC 9000 section 5.1.2 lets us bound those that wait to be retired (CVE-2024-22189).
        if len(self.to_retire) > MAX_RETIRED_CONNECTION_IDS:
            raise self._error(
                ErrorCode.CONNECTION_ID_LIMIT_ERROR, "Too many retired connection IDs"
            )

    def _check_limit(self, held: list[RemoteConnectionId]) -> None:
        if 1 + len(self.spare) + len(held) > ACTIVE_CONNECTION_IDS:
            raise self._error(ErrorCode.CONNECTION_ID_LIMIT_ERROR, "Too many active connection IDs")

    def _check_reuse(self, frame: NewConnectionId, held: list[RemoteConnectionId]) -> None:
        """RFC 9000 section 19.15: a connection ID that is repeated with a different Stateless
        Reset Token or a different Sequence Number, or a sequence number used for different
        connection IDs, MAY be treated as PROTOCOL_VIOLATION. The same frame again MUST NOT."""
        for known in (self.current, *held, *self.spare):
            same_number = known.sequence == frame.sequence_number
            if same_number is not (known.cid == frame.connection_id) or (
                # The client's first connection ID has no token.
                same_number and known.reset_token not in (None, frame.reset_token)
            ):
                raise self._error(
                    ErrorCode.PROTOCOL_VIOLATION,
                    "A connection ID or its sequence number is used again",
                )

    @staticmethod
    def _error(code: ErrorCode, reason: str) -> TransportError:
        return TransportError(code, FrameType.NEW_CONNECTION_ID, reason)

    def change(self) -> bool:
        """Use a spare one from now on and retire the one in use; False without a spare one."""
        if not self.spare:
            return False
        self.use(self.spare.pop(0))
        return True

    def use(self, known: RemoteConnectionId) -> None:
        """Use another ID from now on, and retire the one in use."""
        self.retire(self.current)
        self.current = known
        self.spin = False

    def retire(self, known: RemoteConnectionId) -> None:
        if known.sequence is not None:
            self.to_retire.append(known.sequence)

    def is_stateless_reset(self, data: bytes) -> bool:
        """Whether a datagram ends with the reset token of `current` (RFC 9000 section 10.3.1)."""
        if len(data) < MIN_STATELESS_RESET or data[0] & 0x80:
            return False
        token = self.current.reset_token
        return token is not None and compare_digest(data[-16:], token)

    # --- frames ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """RETIRE_CONNECTION_ID frames pending."""
        return len(self.to_retire)

    @property
    def has_frames(self) -> bool:
        return bool(self.to_retire)

    def write_frames(self, draft: Draft) -> bool:
        """Add RETIRE_CONNECTION_ID frames; whether all fitted."""
        while self.to_retire:
            sequence = self.to_retire[0]
            frame = RetireConnectionId(sequence).encode()
            if not draft.add(frame, self._on_delivery, (sequence,)):
                return False
            del self.to_retire[0]
        return True

    def _on_delivery(self, delivered: bool, sequence: int) -> None:
        if not delivered:
            self.to_retire.append(sequence)
