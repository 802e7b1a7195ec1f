"""A packet under construction: frames, and delivery callbacks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quicedge.quic.connection.sent_packets import Delivery
from quicedge.quic.frames import Epoch


class Draft:
    """Collects frames; `room` is the number of payload bytes left."""

    __slots__ = ("deliveries", "eliciting", "epoch", "expand", "in_flight", "parts", "room")

    def __init__(self, epoch: Epoch, room: int) -> None:
        self.epoch = epoch
        self.room = room
        self.parts: list[bytes] = []
        self.deliveries: list[Delivery] = []
        self.eliciting = False
        self.in_flight = False
        """Whether it counts towards bytes in flight (RFC 9002 section 2)."""
        self.expand = False
        """Whether its datagram must be at least 1200 bytes (RFC 9000 sections 8.2 and 14.1)."""

    @property
    def is_empty(self) -> bool:
        return not self.parts

    def add(
        self,
        frame: bytes,
        delivery: Callable[..., None] | None = None,
        args: tuple[Any, ...] = (),
        *,
        eliciting: bool = True,
    ) -> bool:
        """Add a frame if it fits; returns whether it did. `delivery` is called with True
        (acknowledged) or False (lost), then `args`."""
        left = self.room - len(frame)
        if left < 0:
            return False
        self.parts.append(frame)
        self.room = left
        if delivery is not None:
            self.deliveries.append((delivery, args))
        if eliciting:
            self.eliciting = self.in_flight = True
        return True
