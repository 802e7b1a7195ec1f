"""Checks that most cases share: files, versions, how many handshakes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from interop.runner.checks import Check
from interop.runner.evidence import CheckFailed, CheckUnsupported, Evidence
from interop.runner.trace import Direction, Kind

VERSION_1 = 0x00000001


def files(evidence: Evidence) -> None:
    """The client downloaded exactly what the server offered, byte for byte, and nothing else."""
    offered = {path.name: path for path in evidence.www.iterdir()}
    stored = {path.name: path for path in evidence.downloads.iterdir()}
    missing, extra = sorted(offered.keys() - stored.keys()), sorted(stored.keys() - offered.keys())
    if missing:
        raise CheckFailed(
            f"{len(missing)} of {len(offered)} files missing, {missing[0][:40]} first"
        )
    if extra:
        raise CheckFailed(f"{len(extra)} files too many: {extra[0][:40]}")
    for name, path in offered.items():
        sizes = path.stat().st_size, stored[name].stat().st_size
        if sizes[0] != sizes[1]:
            raise CheckFailed(f"{name[:40]} has {sizes[1]} bytes in place of {sizes[0]}")
        if _digest(path) != _digest(stored[name]):
            raise CheckFailed(f"{name[:40]} has other content than the server's file")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def key_log(evidence: Evidence) -> None:
    """One side wrote a key log; without it the case cannot be checked."""
    if evidence.key_log is None:
        raise CheckUnsupported("neither side wrote a key log")


def handshakes(count: int) -> Check:
    """So many connections: distinct source connection IDs among the server's Initial packets."""

    def check(evidence: Evidence) -> None:
        initials = evidence.right.packets(Direction.FROM_SERVER, Kind.INITIAL)
        seen = {packet.hex("quic.scid") for packet in initials}
        if len(seen) != count:
            raise CheckFailed(f"{len(seen)} handshakes in place of {count}")

    return check


def version_1(evidence: Evidence) -> None:
    """The server's Initial packets are all of version 1."""
    initials = evidence.right.packets(Direction.FROM_SERVER, Kind.INITIAL)
    versions = {packet.version for packet in initials}
    if versions != {VERSION_1}:
        listed = ", ".join(sorted(f"{version or 0:#010x}" for version in versions)) or "none"
        raise CheckFailed(f"versions in the server's Initial packets: {listed}")


def no_retry(evidence: Evidence) -> None:
    """The server asked for no address validation."""
    if evidence.left.packets(Direction.FROM_SERVER, Kind.RETRY):
        raise CheckFailed("the server sent a Retry")
