"""What the hosts of a fleet share, and whether this host can be one of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from quicedge.cli.findings.finding import Finding, Level
from quicedge.config.host_port import HostPort
from quicedge.config.schema import Config
from quicedge.quic.fleet_identity import FleetIdentity, FleetIdentityError, read_identity
from quicedge.quic.ticket_keys import SharedKeyError, read_shared_keys
from quicedge.supervisor.key_store import KeyStoreError, is_store, open_store, read_keys, shown


def of_config(config: Config) -> Iterator[Finding]:
    """Check server ID, keys and secret, shared keys, and the names of peers."""
    identity = None
    try:
        identity = read_identity(config.fleet)
    except FleetIdentityError as error:
        key, _, reason = str(error).partition(": ")
        yield Finding(Level.ERROR, key, reason)
    if identity is not None:
        yield from _identity(config, identity)
    if config.tls.shared_keys is not None:
        yield _shared_keys(config.tls.shared_keys, identity)
    for index, peer in enumerate(config.fleet.peers):
        yield _peer(f"fleet.peers[{index}]", peer)


def _identity(config: Config, identity: FleetIdentity) -> Iterator[Finding]:
    written = config.fleet.server_id or ""
    derived = f", from {written}" if written.startswith(("ordinal", "address")) else ""
    yield Finding(Level.OK, "fleet.server_id", f"0x{identity.server_id.hex()}{derived}")
    first, *others = identity.id_keys
    if first.key is None:
        yield Finding(
            Level.OK, "fleet.config_rotation",
            f"server IDs are in the clear, with config rotation {first.rotation}",
        )  # fmt: skip
        return
    more = f"; {len(others)} more decrypt" if others else ""
    yield Finding(
        Level.OK, "fleet.connection_id_keys", f"config rotation {first.rotation} encrypts{more}"
    )


def _shared_keys(location: str, identity: FleetIdentity | None) -> Finding:
    subject = "tls.shared_keys"
    if not is_store(location):
        try:
            return Finding(Level.OK, subject, str(read_shared_keys(location)).strip("<>"))
        except SharedKeyError as error:
            return Finding(
                Level.ERROR, subject, str(error), "generate a line with openssl rand -hex 32"
            )
    try:
        secret = None if identity is None else identity.secret
        keys = read_keys(open_store(location, secret), time.time())
    except KeyStoreError as error:
        return Finding(
            Level.WARNING, subject, f"{shown(location)}: {error}",
            "meanwhile tickets are valid on this host alone",
        )  # fmt: skip
    return Finding(Level.OK, subject, f"{shown(location)}: {len(keys)} keys, which rotate")


def _peer(subject: str, text: str) -> Finding:
    name = HostPort.parse(text)
    try:
        found = socket.getaddrinfo(name.host, name.port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        return Finding(Level.WARNING, subject, f"{text}: {reason}", "check the name")
    addresses = {sockaddr[0] for *_, sockaddr in found}
    how = "is an address" if addresses == {name.host} else f"has {len(addresses)} addresses"
    return Finding(Level.OK, subject, f"{text} {how}")
