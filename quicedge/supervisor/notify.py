"""Service notifications to systemd: the sd_notify(3) protocol, without its library."""

from __future__ import annotations

import os
import socket
import time


def notify(*assignments: str) -> None:
    """Send `NAME=value` lines to `NOTIFY_SOCKET`, if there is one."""
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
            return  # notifications are best effort


def reloading() -> tuple[str, str]:
    """Assignments for the start of a reload (Type=notify-reload requires the time)."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"
