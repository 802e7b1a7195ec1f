"""Broken on purpose: the server sends more than four times what it received before the client's
address is proved. Must fail `amplificationlimit`."""

import aioquic_peer as peer
from aioquic.quic.connection import NetworkAddress, QuicNetworkPath

_init = QuicNetworkPath.__init__


def trust_address(self: QuicNetworkPath, addr: NetworkAddress, is_validated: bool = False) -> None:
    _init(self, addr, is_validated=True)


if __name__ == "__main__":
    QuicNetworkPath.__init__ = trust_address  # type: ignore[method-assign]
    peer.main()
