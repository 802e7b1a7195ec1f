"""Messages between the hosts of a fleet: sealed datagrams on the ordinary UDP listeners.

kind (1)        below 0x40, which no QUIC packet begins with (RFC 9443)
routing (L)     like a destination connection ID of the receiving host, so that the kernel steers
                the message to the worker that owns the connection; its first octet is 0xff,
                which no connection ID that we issue begins with
sender (8)      random, of each sending process
counter (8)     of the messages of that sender: the nonce, and what replays are known by
body            sealed with AES-256-GCM under a key of the sender, derived from the secret of
                the fleet; it begins with the time
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from typing import cast

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quicedge.config.limits import (
    FLEET_CLOCK_SKEW,
    FLEET_REPLAY_WINDOW,
    FLEET_SENDERS_REMEMBERED,
)

ROUTING_FIRST = b"\xff"
FIRST_QUIC_BYTE = 0x40
"""First bytes from here on belong to QUIC."""
_SENDER_LENGTH = 8
_COUNTER_LENGTH = 8
_TAG_LENGTH = 16
_NONCE_START = bytes(12 - _COUNTER_LENGTH)


class Kind(IntEnum):
    """What a message is."""

    FORWARD = 1
    RELAY = 2
    PROBE = 3
    PRESENT = 4


class Forward(msgspec.Struct, array_like=True):
    """A datagram that a client sent, for the host that owns its connection."""

    time: float
    hops: int
    """How often it may still be forwarded to another host."""
    via: bytes
    """Server ID of the host that it arrived at."""
    ecn: int
    host: str
    """Where it arrived; empty if unknown."""
    port: int
    remote: tuple[str | int, ...]
    """The client."""
    data: bytes


class Relay(msgspec.Struct, array_like=True):
    """A datagram for a client, which only the receiving host can send from that address."""

    time: float
    ecn: int
    host: str
    """The address that it leaves from."""
    port: int
    remote: tuple[str | int, ...]
    data: bytes


class Probe(msgspec.Struct, array_like=True):
    """Asks an address for the server ID behind it."""

    time: float
    challenge: bytes


class Present(msgspec.Struct, array_like=True):
    """The answer to a probe."""

    time: float
    challenge: bytes
    server_id: bytes
    instance: bytes
    """Of the edge, so that it knows itself."""


Body = Forward | Relay | Probe | Present

_BODIES: dict[int, type[Body]] = {
    Kind.FORWARD: Forward, Kind.RELAY: Relay, Kind.PROBE: Probe, Kind.PRESENT: Present,
}  # fmt: skip
_decoders = {kind: msgspec.msgpack.Decoder(body) for kind, body in _BODIES.items()}
_encode = msgspec.msgpack.Encoder().encode


def _is_sound(body: Body) -> bool:
    """Whether addresses are addresses: not names to be looked up, nor what a socket would not take.

    A host of the fleet with another version may send anything.
    """
    if isinstance(body, Probe | Present):
        return True
    host, *rest = body.remote if body.remote else ("",)
    numbers = len(rest) in (1, 3) and all(type(item) is int for item in rest)
    in_range = numbers and all(0 <= cast(int, item) < 1 << 32 for item in rest)
    if not in_range or not 0 < cast(int, rest[0]) < 1 << 16 or not isinstance(host, str):
        return False
    return (
        _is_ip(host.partition("%")[0])
        and (not body.host or _is_ip(body.host))
        and (":" in host) is (len(rest) == 3)
        and (not body.host or (":" in body.host) is (":" in host))
        and 0 <= body.ecn <= 3
    )


def _is_ip(text: str) -> bool:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def _sender_key(secret: bytes, sender: bytes) -> AESGCM:
    """Each sender has its own key: no two processes ever use the same nonce."""
    return AESGCM(hmac.digest(secret, b"quicedge fleet message" + sender, hashlib.sha256))


class FleetSealer:
    """Seals the messages of one process."""

    def __init__(self, secret: bytes) -> None:
        self._sender = os.urandom(_SENDER_LENGTH)
        self._aead = _sender_key(secret, self._sender)
        self._counter = 0

    def seal(self, kind: Kind, routing: bytes, body: Body) -> bytes:
        """A message; `routing` is as long as connection IDs."""
        counter = self._counter = self._counter + 1
        packed = counter.to_bytes(_COUNTER_LENGTH, "big")
        header = bytes((kind,)) + routing + self._sender + packed
        return header + self._aead.encrypt(_NONCE_START + packed, _encode(body), header)


class _Sender:
    """What is known of a sender: its key, and which of its messages have arrived."""

    __slots__ = ("_highest", "_seen", "aead")

    def __init__(self, aead: AESGCM) -> None:
        self.aead = aead
        self._highest = 0
        self._seen = 0
        """Bit n: message `_highest - n`."""

    def take(self, counter: int) -> bool:
        """Whether the message is new."""
        ahead = counter - self._highest
        if ahead > 0:
            kept = self._seen << ahead if ahead < FLEET_REPLAY_WINDOW else 0
            self._seen = kept & (1 << FLEET_REPLAY_WINDOW) - 1 | 1
            self._highest = counter
            return True
        bit = 1 << -ahead
        if -ahead >= FLEET_REPLAY_WINDOW or self._seen & bit:
            return False
        self._seen |= bit
        return True


class FleetOpener:
    """Opens the messages of all senders; each of them once, and only while it is fresh."""

    def __init__(self, secret: bytes, routing_length: int, wall: Callable[[], float]) -> None:
        self._secret = secret
        self._sender_at = 1 + routing_length
        self._counter_at = self._sender_at + _SENDER_LENGTH
        self._body_at = self._counter_at + _COUNTER_LENGTH
        self._wall = wall
        self._senders: OrderedDict[bytes, _Sender] = OrderedDict()

    def open(self, message: bytes) -> Body | None:
        """What a message says; None if no host of the fleet has just sent it."""
        body_at = self._body_at
        decoder = _decoders.get(message[0])
        if decoder is None or len(message) < body_at + _TAG_LENGTH:
            return None
        name = message[self._sender_at : self._counter_at]
        known = self._senders.get(name)
        sender = known or _Sender(_sender_key(self._secret, name))
        counter = message[self._counter_at : body_at]
        try:
            plain = sender.aead.decrypt(
                _NONCE_START + counter, message[body_at:], message[:body_at]
            )
            body: Body = decoder.decode(plain)
        except (InvalidTag, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if known is None:
            # A sender is remembered only once it has proved that it has the secret.
            self._senders[name] = sender
            if len(self._senders) > FLEET_SENDERS_REMEMBERED:
                self._senders.popitem(last=False)
        if not abs(self._wall() - body.time) <= FLEET_CLOCK_SKEW or not _is_sound(body):
            return None
        return body if sender.take(int.from_bytes(counter, "big")) else None
