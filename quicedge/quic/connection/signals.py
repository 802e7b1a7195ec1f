"""Frame sources without state elsewhere: HANDSHAKE_DONE, CRYPTO data, path validation, PING.

Each has `has_frames` and `write_frames`, which returns whether all of them fitted.
"""

from __future__ import annotations

from collections.abc import Callable

from quicedge.quic.connection.draft import Draft
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.connection.paths import Path
from quicedge.quic.connection.send_buffer import SendBuffer
from quicedge.quic.connection.spaces import PacketSpace
from quicedge.quic.events import PingAcknowledged
from quicedge.quic.frames import (
    Crypto,
    HandshakeDone,
    NewToken,
    PathChallenge,
    PathResponse,
    Ping,
    encode_varint,
)

_CHALLENGE_LENGTH = 8


class ConfirmationSignal:
    """HANDSHAKE_DONE and NEW_TOKEN of a server."""

    __slots__ = (
        "_token", "has_frames",
    )  # fmt: skip

    def __init__(self) -> None:
        self.has_frames = False
        self._token = b""

    def announce(self, token: bytes) -> None:
        """The handshake is confirmed; an empty token is not sent."""
        self._token = token
        self.has_frames = True

    def write_frames(self, draft: Draft) -> bool:
        if not draft.add(HandshakeDone().encode(), self._on_delivery):
            return False
        if self._token:
            # Retransmitted together with HANDSHAKE_DONE; omitted if there is no room.
            draft.add(NewToken(self._token).encode())
        self.has_frames = False
        return True

    def _on_delivery(self, delivered: bool) -> None:
        if delivered:
            self._token = b""
        else:
            self.has_frames = True


class CryptoFrames:
    """CRYPTO data of one packet number space."""

    __slots__ = ("_buffer",)

    def __init__(self, space: PacketSpace) -> None:
        self._buffer = space.crypto_out

    @property
    def has_frames(self) -> bool:
        return self._buffer.pending is not None

    def write_frames(self, draft: Draft) -> bool:
        buffer = self._buffer
        while (pending := buffer.pending) is not None:
            start, stop = pending
            room = draft.room - 1 - len(encode_varint(start)) - 2
            if room < 1:
                return False
            stop = min(stop, start + room)
            frame = Crypto(start, buffer.read(start, stop))
            draft.add(frame.encode(), _on_crypto, (buffer, start, stop))
            buffer.take(start, stop)
        return True


def _on_crypto(delivered: bool, buffer: SendBuffer, start: int, stop: int) -> None:
    (buffer.acked if delivered else buffer.lost)(start, stop, False)


class PathFrames:
    """PATH_CHALLENGE and PATH_RESPONSE on one path (RFC 9000 section 8.2)."""

    __slots__ = ("_random", "path")

    def __init__(self) -> None:
        self.path: Path | None = None
        self._random: Callable[[int], bytes] = bytes

    def use(self, path: Path, random: Callable[[int], bytes]) -> None:
        """Write frames of this path from now on."""
        self.path, self._random = path, random

    @property
    def has_frames(self) -> bool:
        return self.path is not None and self.path.has_frames

    def write_frames(self, draft: Draft) -> bool:
        path = self.path
        assert path is not None
        if path.challenge_due:
            data = self._random(_CHALLENGE_LENGTH)
            frame = PathChallenge(data).encode()
            if not draft.add(frame, path.on_challenge_delivery):
                return False
            path.note_challenge(data)
            path.challenge_due = False
            draft.expand = True
        while path.responses:
            # Sent once; if it is lost, the challenger sends another challenge (section 8.2.2).
            if not draft.add(PathResponse(path.responses[0]).encode()):
                return False
            del path.responses[0]
            draft.expand = True
        return True


class Pings:
    """PING frames requested by the application; repeated until acknowledged."""

    __slots__ = (
        "_events", "due",
    )  # fmt: skip

    def __init__(self, events: EventQueue) -> None:
        self._events = events
        self.due: list[int] = []
        """Those to be sent."""

    def add(self, uid: int) -> None:
        self.due.append(uid)

    @property
    def has_frames(self) -> bool:
        return bool(self.due)

    def write_frames(self, draft: Draft) -> bool:
        while self.due:
            if not draft.add(Ping().encode(), self._on_delivery, (self.due[0],)):
                return False
            del self.due[0]
        return True

    def _on_delivery(self, delivered: bool, uid: int) -> None:
        if delivered:
            self._events.append(PingAcknowledged(uid=uid))
        else:
            self.due.append(uid)
