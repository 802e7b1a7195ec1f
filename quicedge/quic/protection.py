"""Packet protection keys (RFC 9001 section 5): what TLS's secrets become, phase by phase."""

from __future__ import annotations

from aioquic.tls import CipherSuite, cipher_suite_hash

from quicedge.quic.hkdf import expand_block, packet_keys
from quicedge.quic.key_schedule import expand_label, extract
from quicedge.quic.packet_cipher import PacketCipher

VERSION_2 = 0x6B3343CF

_INITIAL_SUITE = CipherSuite.AES_128_GCM_SHA256
_INITIAL_HASH = cipher_suite_hash(_INITIAL_SUITE)
_INITIAL_SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
"""RFC 9001 section 5.2."""
_INITIAL_SALT_2 = bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9")
"""RFC 9369 section 3.3.1."""


class PacketKeys:
    """Keys of one direction and epoch."""

    __slots__ = ("_hp", "_secret", "cipher", "suite", "version")

    def __init__(
        self, suite: CipherSuite, secret: bytes, version: int, hp: bytes | None = None
    ) -> None:
        """`hp` is the header protection key that a key update keeps."""
        length = 16 if suite is CipherSuite.AES_128_GCM_SHA256 else 32
        prefix = b"quicv2 " if version == VERSION_2 else b"quic "
        key, iv, new_hp = packet_keys(secret, prefix, length)
        if hp is None:
            hp = new_hp
        self._hp = hp
        self._secret = secret
        self.suite = suite
        self.version = version
        self.cipher = PacketCipher(suite, key, iv, hp)
        """Seals or opens packets."""

    def next_phase(self) -> PacketKeys:
        """The keys after a key update (RFC 9001 section 6.1)."""
        size = len(self._secret)
        label = b"quicv2 ku" if self.version == VERSION_2 else b"quic ku"
        secret = expand_block(size, self._secret, label, b"", size)
        return PacketKeys(self.suite, secret, self.version, self._hp)


def initial_keys(destination_cid: bytes, version: int) -> tuple[PacketKeys, PacketKeys]:
    """The client's and the server's Initial keys (RFC 9001 section 5.2)."""
    salt = _INITIAL_SALT_2 if version == VERSION_2 else _INITIAL_SALT
    secret = extract(_INITIAL_HASH, salt, destination_cid)
    size = _INITIAL_HASH.digest_size
    client = expand_label(_INITIAL_HASH, secret, b"client in", b"", size)
    server = expand_label(_INITIAL_HASH, secret, b"server in", b"", size)
    return PacketKeys(_INITIAL_SUITE, client, version), PacketKeys(_INITIAL_SUITE, server, version)
