"""Listening TCP sockets with the options that accepted connections inherit."""

from __future__ import annotations

import contextlib
import socket

from quicedge.config import limits


def open_listening_socket(
    family: socket.AddressFamily,
    host: str,
    port: int,
    *,
    reuse_port: bool = False,
    listen: bool = True,
) -> socket.socket:
    """A listening, non-blocking TCP socket; raises OSError if the address cannot be bound.

    On Linux, accepted sockets inherit the options. With `listen=False` it is only bound.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Connections of a previous process in TIME_WAIT must not keep the address.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        _tune(sock)
        if listen:
            sock.listen(limits.TCP_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _tune(sock: socket.socket) -> None:
    """Set the options that the kernel has; those it refuses are omitted."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        # In every protocol on TLS the client speaks first: accept a connection when it has spoken,
        # so that silent ones cost no descriptor.
        ("TCP_DEFER_ACCEPT", limits.TCP_DEFER_ACCEPT),
        # What the kernel holds unsent can no longer be reordered by priority or reset.
        ("TCP_NOTSENT_LOWAT", limits.TCP_NOTSENT_LOWAT),
        # A client that is gone without a word, or has closed both halves where one would do, is
        # found out even if nothing is sent to it: an application may wait for it to leave.
        ("TCP_KEEPIDLE", limits.TCP_KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", limits.TCP_KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", limits.TCP_KEEPALIVE_PROBES),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def stop_listening(sock: socket.socket) -> None:
    """Take a listening socket out of service, in all processes that share it.

    Unlike closing our descriptor of it, this refuses clients from now on: they and load balancers
    go elsewhere at once. `socket.listen` puts it back into service.
    """
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def reset(sock: socket.socket) -> None:
    """Close an accepted connection with a RST, which tells the client at once and leaves nothing
    behind."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
