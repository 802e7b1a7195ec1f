"""Telling systemd how it goes: the sd_notify protocol (sd_notify(3)), without its library."""

from __future__ import annotations

import os
import socket
import time


def notify(*assignments: str) -> None:
    """Send `NAME=value` lines to `NOTIFY_SOCKET`; nothing happens when there is none."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.sendto("\n".join(assignments).encode(), path)
        except OSError:
            return  # systemd's absence must not stop the edge


def reloading() -> tuple[str, str]:
    """What to notify when a reload begins; the time lets systemd order it (Type=notify-reload)."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"
