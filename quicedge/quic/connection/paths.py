"""Network paths of a connection: the active one, and others being validated or no longer used.

A path owns its validation (RFC 9000 section 8.2), anti-amplification limit (section 8.1), MTU
discovery, ECN validation, RTT, congestion window and pacer (section 9.4). `migration` decides which
path is active.
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
from quicedge.quic.ecn import EcnState, EcnValidation
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
        """Data of unanswered PATH_CHALLENGE frames."""
        self.challenge_due = False
        self.validation_deadline: float | None = None
        self.responses: list[bytes] = []
        """Data of PATH_CHALLENGE frames to answer."""
        self.remote_cid: RemoteConnectionId | None = None
        """Reserved for probing this path; None for the active path."""
        self.mtu: PathMtu | None = None
        self.ecn: EcnValidation | None = None
        self.rtt: RttEstimator | None = None
        self.controller: CongestionController | None = None
        self.pacer: Pacer | None = None

    def room(self) -> int:
        """Bytes that may be sent before the address is validated."""
        return AMPLIFICATION_FACTOR * self.bytes_received - self.bytes_sent

    def note_challenge(self, data: bytes) -> None:
        """A PATH_CHALLENGE was sent; only the latest are remembered."""
        self.challenges.append(data)
        del self.challenges[:-MAX_LOCAL_CHALLENGES]

    def receive_challenge(self, data: bytes) -> None:
        """Queue a response to PATH_CHALLENGE; dropped if too many are pending."""
        if len(self.responses) < MAX_REMOTE_CHALLENGES:
            self.responses.append(data)

    def on_challenge_delivery(self, delivered: bool) -> None:
        # RFC 9000 section 8.2.2: a PATH_RESPONSE is sent once. If it is lost, the peer has
        # acknowledged the challenge but will not answer it again, so send another one.
        if not self.is_validated and self.validation_deadline is not None:
            self.challenge_due = True

    @property
    def has_frames(self) -> bool:
        return self.challenge_due or bool(self.responses)

    def host(self) -> Any:
        """The address without its port, which a NAT rebinding may change."""
        remote = getattr(self.address, "remote", self.address)
        return remote[0] if isinstance(remote, tuple) and remote else remote


class Paths:
    """The paths of one connection.

    Invariants: `known` is empty until the first `add`, then never again; its first element is the
    active path; it holds at most MAX_PATHS.
    """

    def __init__(self) -> None:
        self.known: list[Path] = []
        """The active one first."""

    @property
    def active(self) -> Path:
        return self.known[0]

    @property
    def address(self) -> Any | None:
        """Address of the active path; None before the first `add`."""
        return self.known[0].address if self.known else None

    @property
    def ecn_state(self) -> EcnState:
        """State of ECN validation on the active path."""
        ecn = self.known[0].ecn if self.known else None
        return ecn.state if ecn is not None else EcnState.TESTING

    def find(self, address: Any) -> Path | None:
        for path in self.known:
            if path.address == address:
                return path
        return None

    def add(self, path: Path) -> None:
        """Add a path; if there are too many, evict an inactive one, unvalidated ones first."""
        if len(self.known) >= MAX_PATHS:
            others = self.known[1:]
            self.known.remove(next((old for old in others if not old.is_validated), others[0]))
        self.known.append(path)

    def promote(self, path: Path) -> None:
        """Make a known path the active one."""
        self.known.remove(path)
        self.known.insert(0, path)

    def begin_validation(self, path: Path, deadline: float) -> None:
        """Challenge a path until it responds or the deadline passes."""
        path.challenge_due = True
        path.validation_deadline = deadline

    def receive_response(self, data: bytes) -> Path | None:
        """Validate the path whose challenge a PATH_RESPONSE answers, and return it. A response that
        matches none is ignored (section 19.18), as its challenge may have been evicted."""
        for path in self.known:
            if data in path.challenges:
                path.is_validated = True
                path.challenges.clear()
                path.challenge_due = False
                path.validation_deadline = None
                return path
        return None

    def validated(self) -> Path | None:
        """The validated path used most recently."""
        for path in self.known:
            if path.is_validated:
                return path
        return None

    def deadline(self) -> float | None:
        """When validation of the active path fails."""
        return self.known[0].validation_deadline if self.known else None

    def give_up_active(self) -> Path | None:
        """Drop the active path and fall back to a validated one, if any."""
        fallback = self.validated()
        if fallback is None:
            return None
        self.known.remove(self.known[0])
        self.promote(fallback)
        return fallback

    def reserved_ids(self, below: int) -> list[RemoteConnectionId]:
        """IDs reserved by paths; those with a sequence number less than `below` are released."""
        held = []
        for path in self.known:
            if path.remote_cid is not None:
                held.append(path.remote_cid)
                if (path.remote_cid.sequence or 0) < below:
                    path.remote_cid = None
        return held

    def probing(self) -> list[Path]:
        """Inactive paths with frames to send."""
        return [path for path in self.known[1:] if path.has_frames]
