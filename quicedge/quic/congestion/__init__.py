"""Congestion controllers by name. They account in bytes, not packets."""

from __future__ import annotations

from quicedge.quic.congestion.base import CongestionController
from quicedge.quic.congestion.bbr import Bbr
from quicedge.quic.congestion.cubic import Cubic
from quicedge.quic.congestion.newreno import NewReno

CONTROLLERS: dict[str, type[CongestionController]] = {
    "bbr": Bbr,
    "cubic": Cubic,
    "reno": NewReno,
}


def make_controller(name: str, max_datagram_size: int) -> CongestionController:
    """The controller called `name`; raises KeyError for an unknown one."""
    return CONTROLLERS[name](max_datagram_size)


__all__ = ["CONTROLLERS", "CongestionController", "make_controller"]
