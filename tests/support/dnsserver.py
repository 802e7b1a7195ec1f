"""A DNS server on loopback that says what a test has it say."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from quicedge.config.host_port import HostPort

NO_SUCH_NAME = 3


def encode_name(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def https_record(
    *alpn: str,
    port: int | None = None,
    priority: int = 1,
    target: str = "",
    owner: bytes = b"\xc0\x0c",
) -> bytes:
    """One record of an answer section; its owner is that of the question."""
    data = struct.pack("!H", priority) + encode_name(target)
    if alpn:
        value = b"".join(bytes((len(name),)) + name.encode() for name in alpn)
        data += struct.pack("!HH", 1, len(value)) + value
    if port is not None:
        data += struct.pack("!HHH", 3, 2, port)
    return owner + struct.pack("!HHIH", 65, 1, 300, len(data)) + data


def response(query: bytes, *records: bytes, rcode: int = 0) -> bytes:
    """The response to a query, without the OPT record of its end."""
    header = query[:2] + struct.pack("!5H", 0x8180 | rcode, 1, len(records), 0, 0)
    return header + query[12:-11] + b"".join(records)


def question(query: bytes) -> str:
    labels, at = [], 12
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels)


@contextmanager
def dns_server(
    zone: Mapping[str, list[bytes]], *, lost: int = 0, asked: list[str] | None = None
) -> Iterator[HostPort]:
    """Answers with the records of a zone, and that others do not exist; the first `lost` queries
    are lost. `asked` gets the names."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            left = lost
            while True:
                query, client = server.recvfrom(2048)
                if not query:
                    return
                name = question(query)
                if asked is not None:
                    asked.append(name)
                if left:
                    left -= 1
                    continue
                rcode = 0 if name in zone else NO_SUCH_NAME
                forged = bytes((query[0] ^ 1,)) + query[1:]
                server.sendto(response(forged, https_record("forged")), client)
                server.sendto(response(query, *zone.get(name, ()), rcode=rcode), client)

        thread = threading.Thread(target=serve)
        thread.start()
        address = HostPort.of(server.getsockname())
        try:
            yield address
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", address)
            thread.join(10)
