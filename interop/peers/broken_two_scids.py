"""Broken on purpose: the server answers a client's first Initial twice, the second time from a
connection of another source connection ID. Must fail `handshake`, though every file arrives."""

from typing import Any

import aioquic_peer as peer
from aioquic.asyncio.server import QuicServer
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header

_datagram_received = QuicServer.datagram_received


def answer_twice(self: Any, data: bytes, addr: Any) -> None:
    length = self._configuration.connection_id_length
    header = pull_quic_header(Buffer(data=data), host_cid_length=length)
    first = header.packet_type is QuicPacketType.INITIAL
    first = first and header.version in self._configuration.supported_versions
    first = first and header.destination_cid not in self._protocols
    _datagram_received(self, data, addr)
    if first:
        other = QuicConnection(
            configuration=self._configuration,
            original_destination_connection_id=header.destination_cid,
        )
        now = self._loop.time()
        other.receive_datagram(data, addr, now)
        self._transport.sendto(other.datagrams_to_send(now)[0][0], addr)


if __name__ == "__main__":
    QuicServer.datagram_received = answer_twice  # type: ignore[method-assign]
    peer.main()
