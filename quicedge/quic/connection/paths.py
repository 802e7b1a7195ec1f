"""Network paths of a connection: the one in use first, others under validation or left behind.

Each has what belongs to a path: its validation (RFC 9000 section 8.2), the anti-amplification
limit (section 8.1), MTU discovery, ECN validation, RTT, window and pacing (section 9.4). The
connection promotes a path when the client moves there, and falls back when validation fails.
"""

from __future__ import annotations

from typing import Any

from quicedge.config.limits import (
    AMPLIFICATION_FACTOR,
    MAX_LOCAL_CHALLENGES,
    MAX_PATHS,
    MAX_REMOTE_CHALLENGES,
)
from quicedge.quic.congestion import CongestionController
from quicedge.quic.connection.connection_ids import RemoteConnectionId
from quicedge.quic.ecn import EcnValidation
from quicedge.quic.pacer import Pacer
from quicedge.quic.pmtud import PathMtu
from quicedge.quic.rtt import RttEstimator


class Path:
    """One network path. `address` is opaque; equal addresses are one path."""

    __slots__ = (
        "address", "bytes_received", "bytes_sent", "challenge_due", "challenges", "controller",
        "ecn", "is_validated", "mtu", "pacer", "remote_cid", "responses", "rtt",
        "validation_deadline",
    )  # fmt: skip

    def __init__(self, address: Any, *, validated: bool = False) -> None:
        self.address = address
        self.is_validated = validated
        self.bytes_received = 0
        self.bytes_sent = 0
        self.challenges: list[bytes] = []
        """Data of PATH_CHALLENGE frames sent and not answered."""
        self.challenge_due = False
        self.validation_deadline: float | None = None
        self.responses: list[bytes] = []
        """Data of PATH_CHALLENGE frames to answer."""
        self.remote_cid: RemoteConnectionId | None = None
        """Reserved for probing this path; None for the one in use."""
        self.mtu: PathMtu | None = None
        self.ecn: EcnValidation | None = None
        self.rtt: RttEstimator | None = None
        self.controller: CongestionController | None = None
        self.pacer: Pacer | None = None

    def room(self) -> int:
        """Bytes that may be sent before the address is validated."""
        return AMPLIFICATION_FACTOR * self.bytes_received - self.bytes_sent

    def note_challenge(self, data: bytes) -> None:
        """PATH_CHALLENGE was sent; the oldest of too many are forgotten."""
        self.challenges.append(data)
        del self.challenges[:-MAX_LOCAL_CHALLENGES]

    def receive_challenge(self, data: bytes) -> None:
        """PATH_CHALLENGE; beyond a number that wait they are dropped."""
        if len(self.responses) < MAX_REMOTE_CHALLENGES:
            self.responses.append(data)

    def on_challenge_delivery(self, delivered: bool) -> None:
        # RFC 9000 section 8.2.2: a PATH_RESPONSE is sent once, so when it is lost the peer has
        # acknowledged the challenge and will never answer it; only another one brings an answer.
        if not self.is_validated and self.validation_deadline is not None:
            self.challenge_due = True

    @property
    def has_frames(self) -> bool:
        return self.challenge_due or bool(self.responses)

    def host(self) -> Any:
        """What of the address stays the same when a NAT picks another port."""
        remote = getattr(self.address, "remote", self.address)
        return remote[0] if isinstance(remote, tuple) and remote else remote


class Paths:
    """The paths of one connection; `active` is the one packets are sent on."""

    def __init__(self) -> None:
        self.known: list[Path] = []
        """The active one first."""

    @property
    def active(self) -> Path:
        return self.known[0]

    def find(self, address: Any) -> Path | None:
        for path in self.known:
            if path.address == address:
                return path
        return None

    def add(self, path: Path) -> None:
        """Remember a path; an old one that is not in use makes room, unvalidated ones first."""
        if len(self.known) >= MAX_PATHS:
            others = self.known[1:]
            self.known.remove(next((old for old in others if not old.is_validated), others[0]))
        self.known.append(path)

    def promote(self, path: Path) -> None:
        """Send on this path from now on."""
        self.known.remove(path)
        self.known.insert(0, path)

    def begin_validation(self, path: Path, deadline: float) -> None:
        """Challenge a path until it answers or the deadline passes."""
        path.challenge_due = True
        path.validation_deadline = deadline

    def receive_response(self, data: bytes) -> Path | None:
        """PATH_RESPONSE: the path that it validates. One that fits nothing is ignored (section
        19.18 leaves that to us: its challenge may have been forgotten)."""
        for path in self.known:
            if data in path.challenges:
                path.is_validated = True
                path.challenges.clear()
                path.challenge_due = False
                path.validation_deadline = None
                return path
        return None

    def validated(self) -> Path | None:
        """The validated path used last."""
        return next((path for path in self.known if path.is_validated), None)

    def deadline(self) -> float | None:
        """When the validation of the path in use is given up."""
        return self.known[0].validation_deadline if self.known else None

    def give_up_active(self) -> Path | None:
        """The path in use did not answer: return to one that did, or None."""
        fallback = self.validated()
        if fallback is None:
            return None
        self.known.remove(self.known[0])
        self.promote(fallback)
        return fallback

    def reserved_ids(self, below: int) -> list[RemoteConnectionId]:
        """IDs that paths hold; those with a sequence number below `below` are released."""
        held = []
        for path in self.known:
            if path.remote_cid is not None:
                held.append(path.remote_cid)
                if (path.remote_cid.sequence or 0) < below:
                    path.remote_cid = None
        return held

    def probing(self) -> list[Path]:
        """Paths other than the one in use with something to send."""
        return [path for path in self.known[1:] if path.has_frames]
