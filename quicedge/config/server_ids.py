"""The server ID of this host, as the configuration says it: in digits, or derived from the host."""

from __future__ import annotations

import ipaddress
import os
import re
import socket

from quicedge.config.limits import FLEET_MAX_SERVER_ID

_WRITTEN = re.compile(r"(?:0x)?((?:[0-9A-Fa-f]{2})+)")
_DERIVED = re.compile(r"(ordinal|address)(?::([0-9]{1,2}))?")
_ORDINAL_LENGTH = 2
_ADDRESS_VARIABLE = "POD_IP"
"""Kubernetes' downward API sets it as the manifests in deploy/ say."""


class ServerIdError(ValueError):
    """Not a server ID, or none can be derived; the message says why."""


def server_id_problem(text: str) -> str | None:
    """What is wrong with a server ID as written; None if nothing is."""
    derived = _DERIVED.fullmatch(text)
    if derived is None and not _WRITTEN.fullmatch(text):
        return "is not an even number of hexadecimal digits, ordinal or address"
    length = server_id_length(text)
    if length is not None and not 1 <= length <= FLEET_MAX_SERVER_ID:
        return f"has {length} bytes; 1 to {FLEET_MAX_SERVER_ID} are possible"
    return None


def server_id_length(text: str) -> int | None:
    """In bytes; None if the host's address decides."""
    if derived := _DERIVED.fullmatch(text):
        if derived[2]:
            return int(derived[2])
        return _ORDINAL_LENGTH if derived[1] == "ordinal" else None
    written = _WRITTEN.fullmatch(text)
    return len(written[1]) // 2 if written else None


def resolve_server_id(text: str) -> bytes:
    """The server ID of this host; raises ServerIdError.

    `ordinal` is the number that the host name ends with (a StatefulSet's pod), `address` the IP
    address: all of an IPv4 address, the last eight bytes of an IPv6 address. `:N` makes either N
    bytes long.
    """
    derived = _DERIVED.fullmatch(text)
    if derived is None:
        written = _WRITTEN.fullmatch(text)
        if written is None:
            raise ServerIdError(f"{text!r} {server_id_problem(text)}")
        return bytes.fromhex(written[1])
    if derived[1] == "ordinal":
        name = socket.gethostname().partition(".")[0]
        number = re.search(r"([0-9]+)$", name)
        if number is None:
            raise ServerIdError(f"the host name {name!r} does not end with a number")
        length = server_id_length(text) or _ORDINAL_LENGTH
        try:
            return int(number[1]).to_bytes(length, "big")
        except OverflowError:
            raise ServerIdError(f"{number[1]} does not fit into {length} bytes") from None
    packed = _own_address().packed[-8:]
    wanted = server_id_length(text) or len(packed)
    return packed[-wanted:].rjust(wanted, b"\0")


def _own_address() -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    text = os.environ.get(_ADDRESS_VARIABLE)
    if text is None:
        try:
            text = str(socket.getaddrinfo(socket.gethostname(), None)[0][4][0])
        except OSError as error:
            raise ServerIdError(f"the host name has no address: {error.strerror}") from error
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise ServerIdError(f"{_ADDRESS_VARIABLE}: {text!r} is not an IP address") from None
    if address.is_loopback or address.is_unspecified:
        raise ServerIdError(
            f"the host name resolves to {address}; set {_ADDRESS_VARIABLE} in the environment"
        )
    return address
