"""Broken on purpose: the server changes the last byte of every file. Must fail `handshake`."""

import aioquic_peer as peer

_read_file = peer.read_file


def read_file(path: str) -> bytes | None:
    data = _read_file(path)
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


if __name__ == "__main__":
    peer.read_file = read_file
    peer.main()
