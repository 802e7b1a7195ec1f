"""A capture as the checks read it: datagrams and the QUIC packets in them, dissected by tshark."""

from __future__ import annotations

import os
import subprocess
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from interop.runner import addresses
from interop.runner.dissection import write_dissectible
from interop.runner.nat import Endpoint
from interop.runner.packet import Packet
from interop.runner.pcap import read_pcap

# Ports that a server of ours or of a peer listens on; the second is for a preferred address.
SERVER_PORTS = (addresses.PORT, 4433)


class TraceError(Exception):
    """tshark could not read a capture; the message is its own."""


class Direction(Enum):
    FROM_CLIENT = (
        f"(ip.dst == {addresses.SERVER_V4} || ipv6.dst == {addresses.SERVER_V6})"
        " && quic && !icmp && !icmpv6"
    )
    FROM_SERVER = (
        f"(ip.src == {addresses.SERVER_V4} || ipv6.src == {addresses.SERVER_V6})"
        " && quic && !icmp && !icmpv6"
    )


class Kind(Enum):
    INITIAL = "Initial"
    EARLY = "0-RTT"
    HANDSHAKE = "Handshake"
    RETRY = "Retry"
    VERSION_NEGOTIATION = "Version Negotiation"
    SHORT = "1-RTT"
    UNKNOWN = "not QUIC"


# RFC 9000 table 5 and RFC 9369 section 3.2.
_KINDS_V1 = {0: Kind.INITIAL, 1: Kind.EARLY, 2: Kind.HANDSHAKE, 3: Kind.RETRY}
_KINDS_V2 = {1: Kind.INITIAL, 2: Kind.EARLY, 3: Kind.HANDSHAKE, 0: Kind.RETRY}

# Opened, not opened for want of a key, and short header: tshark shows one of these per packet.
_PAYLOADS = {"quic.payload", "quic.remaining_payload", "quic.protected_payload"}

_FILTERS = {
    Kind.INITIAL: "(quic.long.packet_type == 0 || quic.long.packet_type_v2 == 1)",
    Kind.EARLY: "(quic.long.packet_type == 1 || quic.long.packet_type_v2 == 2)",
    Kind.HANDSHAKE: "(quic.long.packet_type == 2 || quic.long.packet_type_v2 == 3)",
    Kind.RETRY: "(quic.long.packet_type == 3 || quic.long.packet_type_v2 == 0)",
    Kind.VERSION_NEGOTIATION: "quic.version == 0",
    Kind.SHORT: "quic.short",
}


@dataclass(frozen=True)
class QuicPacket:
    """One QUIC packet: what tshark shows of each field, in order, TLS inside it included."""

    kind: Kind
    payload_size: int
    fields: dict[str, list[str]] = field(repr=False)

    def values(self, name: str) -> list[str]:
        return self.fields.get(name, [])

    def integers(self, name: str) -> list[int]:
        return [int(value, 0) for value in self.values(name)]

    def hex(self, name: str) -> str | None:
        """The first value of a field of bytes, without separators; None when it is absent."""
        values = self.values(name)
        return values[0].replace(":", "") if values else None

    @property
    def version(self) -> int | None:
        versions = self.integers("quic.version")
        return versions[0] if versions else None

    @property
    def number(self) -> int | None:
        numbers = self.integers("quic.packet_number")
        return numbers[0] if numbers else None


@dataclass(frozen=True)
class Datagram:
    """One UDP datagram with QUIC in it. `size` is the UDP length, its header included."""

    frame: int
    source: tuple[str, int]
    destination: tuple[str, int]
    size: int
    ecn: int | None
    packets: list[QuicPacket]

    def of(self, kind: Kind) -> list[QuicPacket]:
        return [packet for packet in self.packets if packet.kind is kind]


class Trace:
    """One capture file, with the key log that opens it (None: Initial packets alone open).

    With `client`, datagrams show this address in place of those that a NAT gave the client.
    """

    def __init__(self, path: Path, key_log: Path | None, client: Endpoint | None = None) -> None:
        self.path = path
        self._key_log = key_log
        self._cache: dict[str, list[Datagram]] = {}
        handle, self._copy = tempfile.mkstemp(suffix=".pcap")
        os.close(handle)
        weakref.finalize(self, os.unlink, self._copy)
        write_dissectible(path, Path(self._copy), client)

    def datagrams(self, condition: str) -> list[Datagram]:
        """Datagrams that match a display filter."""
        if condition not in self._cache:
            command = self._command("-Y", condition, "-T", "pdml", "-J", "ip ipv6 udp quic tls")
            self._cache[condition] = list(self._run(command))
        return self._cache[condition]

    def sent(self, direction: Direction, *kinds: Kind) -> list[Datagram]:
        """Datagrams one way; with `kinds`, those that hold a packet of one of them."""
        condition = direction.value
        if kinds:
            condition += f" && ({' || '.join(_FILTERS[kind] for kind in kinds)})"
        return self.datagrams(condition)

    def packets(self, direction: Direction, kind: Kind) -> list[QuicPacket]:
        """QUIC packets of one kind, one way, in order."""
        return [packet for item in self.sent(direction, kind) for packet in item.of(kind)]

    def frames(self, numbers: list[int]) -> list[Datagram]:
        """The datagrams in these frames (counted from 1)."""
        listed = ", ".join(str(number) for number in numbers)
        return self.datagrams(f"frame.number in {{{listed}}}") if numbers else []

    def times(self, direction: Direction, kind: Kind) -> list[float]:
        """When each datagram with a packet of `kind` was seen, in seconds since the epoch."""
        condition = f"{direction.value} && {_FILTERS[kind]}"
        done = subprocess.run(
            self._command("-Y", condition, "-T", "fields", "-e", "frame.time_epoch"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TraceError(done.stderr.strip())
        return [float(line) for line in done.stdout.split()]

    def scan(self) -> Iterator[tuple[int, Packet]]:
        """Every frame with its number from 1, undissected: the quick way through a long capture."""
        for number, (_, frame) in enumerate(read_pcap(self.path), 1):
            yield number, Packet(frame)

    def _command(self, *words: str) -> list[str]:
        command = ["tshark", "-n", "-r", self._copy, "--disable-protocol", "http3"]
        for port in SERVER_PORTS:
            command += ["-d", f"udp.port=={port},quic"]
        if self._key_log is not None:
            command += ["-o", f"tls.keylog_file:{self._key_log}"]
        return [*command, *words]

    def _run(self, command: list[str]) -> Iterator[Datagram]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield from _read_pdml(process.stdout)
        except ElementTree.ParseError as error:
            process.kill()
            said = process.stderr.read().decode(errors="replace").strip()
            raise TraceError(f"tshark {self.path.name}: {said or error}") from error
        finally:
            process.stdout.close()
            process.stderr.close()
            process.wait()


def _read_pdml(stream: IO[bytes]) -> Iterator[Datagram]:
    for _, element in ElementTree.iterparse(stream):
        if element.tag == "packet":
            yield _datagram(element)
            element.clear()


def _datagram(element: ElementTree.Element) -> Datagram:
    frame = size = 0
    ecn: int | None = None
    ends: dict[str, str] = {}
    packets: list[QuicPacket] = []
    for proto in element.findall("proto"):
        name = proto.get("name")
        if name == "quic":
            packets.append(_quic_packet(proto))
            continue
        for item in proto.iter("field"):
            key, show = item.get("name", ""), item.get("show", "")
            if key == "num":
                frame = int(show)
            elif key in ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst"):
                ends[key.partition(".")[2]] = show
            elif key in ("udp.srcport", "udp.dstport"):
                ends[key] = show
            elif key == "udp.length":
                size = int(show)
            elif key == "ip.dsfield.ecn":
                ecn = int(show)
    return Datagram(
        frame,
        (ends.get("src", ""), int(ends.get("udp.srcport", 0))),
        (ends.get("dst", ""), int(ends.get("udp.dstport", 0))),
        size,
        ecn,
        packets,
    )


def _quic_packet(proto: ElementTree.Element) -> QuicPacket:
    fields: dict[str, list[str]] = {}
    payload = 0
    for item in proto.iter("field"):
        name = item.get("name")
        if name:
            fields.setdefault(name, []).append(item.get("show", ""))
            if name in _PAYLOADS:
                payload = int(item.get("size", 0))
    return QuicPacket(_kind(fields), payload, fields)


def _kind(fields: dict[str, list[str]]) -> Kind:
    if "quic.long.packet_type" in fields:
        return _KINDS_V1[int(fields["quic.long.packet_type"][0], 0)]
    if "quic.long.packet_type_v2" in fields:
        return _KINDS_V2[int(fields["quic.long.packet_type_v2"][0], 0)]
    if "quic.version" in fields and int(fields["quic.version"][0], 0) == 0:
        return Kind.VERSION_NEGOTIATION
    if "quic.short" in fields:
        return Kind.SHORT
    return Kind.UNKNOWN
