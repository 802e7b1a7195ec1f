"""Broken on purpose: the client leaves a file that nobody asked for. Must fail `handshake`."""

import aioquic_peer as peer

if __name__ == "__main__":
    if peer.ROLE == "client" and peer.TESTCASE in peer.SUPPORTED["client"]:
        (peer.DOWNLOADS / "extra").write_bytes(b"not asked for")
    peer.main()
