"""Broken on purpose: the server trusts every new path unseen. Must fail `rebind-port`."""

from typing import Any

import aioquic_peer as peer
from aioquic.quic.connection import QuicConnection


def trust_path(self: QuicConnection, *, builder: Any, network_path: Any) -> None:
    network_path.is_validated = True
    network_path.local_challenge_sent = True


if __name__ == "__main__":
    QuicConnection._write_path_challenge_frame = trust_path  # type: ignore[method-assign]
    peer.main()
