"""Packet protection (RFC 9001 section 5): the only module that touches AEAD and header protection.

Runs of packets are sealed and opened as bytes and integers: the AEAD packet by packet, header
protection in one call of the cipher for the whole run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from aioquic.tls import CipherSuite, cipher_suite_hash
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from quicedge.quic.key_schedule import expand_label, extract

TAG_LENGTH = 16
SAMPLE_LENGTH = 16
MAX_NUMBER_LENGTH = 4
"""Bytes of a packet number at most: the sample starts as many behind where it starts."""
VERSION_2 = 0x6B3343CF

_CHACHA20 = CipherSuite.CHACHA20_POLY1305_SHA256
_INITIAL_SUITE = CipherSuite.AES_128_GCM_SHA256
_INITIAL_HASH = cipher_suite_hash(_INITIAL_SUITE)
_INITIAL_SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
"""RFC 9001 section 5.2."""
_INITIAL_SALT_2 = bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9")
"""RFC 9369 section 3.3.1."""
_LONG_BITS, _SHORT_BITS = 0x0F, 0x1F
"""Bits of the first byte that header protection covers (RFC 9001 section 5.4.1)."""
_ECB = modes.ECB()  # RFC 9001 section 5.4.3 masks headers with single blocks


class PacketKeys:
    """Keys of one direction and epoch."""

    __slots__ = ("_chacha20", "_hp", "_secret", "decrypt", "encrypt", "iv", "suite", "version")

    def __init__(self, suite: CipherSuite, secret: bytes, version: int, hp: Any = None) -> None:
        """`hp` is the header protection that a key update keeps."""
        algorithm = cipher_suite_hash(suite)
        length = 16 if suite is CipherSuite.AES_128_GCM_SHA256 else 32
        prefix = b"quicv2 " if version == VERSION_2 else b"quic "
        key = expand_label(algorithm, secret, prefix + b"key", b"", length)
        iv = expand_label(algorithm, secret, prefix + b"iv", b"", 12)
        self._chacha20 = suite is _CHACHA20
        aead = ChaCha20Poly1305(key) if self._chacha20 else AESGCM(key)
        self.encrypt, self.decrypt = aead.encrypt, aead.decrypt
        self.iv = int.from_bytes(iv, "big")
        self._secret = secret
        self.suite = suite
        self.version = version
        if hp is None:
            hp_key = expand_label(algorithm, secret, prefix + b"hp", b"", length)
            if self._chacha20:
                # Its nonce is set anew for each packet.
                hp = Cipher(algorithms.ChaCha20(hp_key, bytes(16)), mode=None).encryptor()
            else:
                hp = Cipher(algorithms.AES(hp_key), _ECB).encryptor()
        self._hp = hp

    def next_phase(self) -> PacketKeys:
        """The keys after a key update (RFC 9001 section 6.1)."""
        algorithm = cipher_suite_hash(self.suite)
        label = b"quicv2 ku" if self.version == VERSION_2 else b"quic ku"
        secret = expand_label(algorithm, self._secret, label, b"", algorithm.digest_size)
        return PacketKeys(self.suite, secret, self.version, self._hp)

    def masks(self, samples: list[bytes]) -> bytes:
        """Header protection masks, 16 bytes each of which the first five count."""
        hp = self._hp
        if not self._chacha20:
            masks: bytes = hp.update(b"".join(samples))
            return masks
        parts = []
        for sample in samples:
            hp.reset_nonce(sample)
            parts.append(hp.update(bytes(SAMPLE_LENGTH)))
        return b"".join(parts)


def initial_keys(destination_cid: bytes, version: int) -> tuple[PacketKeys, PacketKeys]:
    """The client's and the server's Initial keys (RFC 9001 section 5.2)."""
    salt = _INITIAL_SALT_2 if version == VERSION_2 else _INITIAL_SALT
    secret = extract(_INITIAL_HASH, salt, destination_cid)
    size = _INITIAL_HASH.digest_size
    client = expand_label(_INITIAL_HASH, secret, b"client in", b"", size)
    server = expand_label(_INITIAL_HASH, secret, b"server in", b"", size)
    return PacketKeys(_INITIAL_SUITE, client, version), PacketKeys(_INITIAL_SUITE, server, version)


# --- sealing ------------------------------------------------------------------------------------


def seal(keys: PacketKeys, header: bytes, payload: bytes, number: int) -> bytes:
    """One packet. `header` ends with the packet number in the length that its first byte tells."""
    first = header[0]
    pn_length = (first & 0x03) + 1
    body = keys.encrypt((keys.iv ^ number).to_bytes(12, "big"), payload, header)
    skip = MAX_NUMBER_LENGTH - pn_length
    mask = keys.masks([body[skip : skip + SAMPLE_LENGTH]])
    pn_at = len(header) - pn_length
    masked = int.from_bytes(header[pn_at:], "big") ^ int.from_bytes(mask[1 : 1 + pn_length], "big")
    covered = _LONG_BITS if first & 0x80 else _SHORT_BITS
    return b"".join((
        bytes((first ^ (mask[0] & covered),)), header[1:pn_at],
        masked.to_bytes(pn_length, "big"), body,
    ))  # fmt: skip


def seal_run(
    keys: PacketKeys, first_byte: int, cid: bytes, number: int, payloads: list[bytes]
) -> tuple[bytes, int]:
    """Short header packets of consecutive numbers: all of them joined, and the last one's size."""
    encrypt, iv = keys.encrypt, keys.iv
    pn_length = (first_byte & 0x03) + 1
    mask_number = (1 << 8 * pn_length) - 1
    prefix = bytes((first_byte,)) + cid
    at = number
    sealed = []
    for payload in payloads:
        header = prefix + (at & mask_number).to_bytes(pn_length, "big")
        sealed.append(encrypt((iv ^ at).to_bytes(12, "big"), payload, header))
        at += 1
    skip = MAX_NUMBER_LENGTH - pn_length
    masks = keys.masks([body[skip : skip + SAMPLE_LENGTH] for body in sealed])
    parts: list[bytes] = []
    at = 0
    for body in sealed:
        mask = int.from_bytes(masks[at + 1 : at + 1 + pn_length], "big")
        parts += (
            bytes((first_byte ^ (masks[at] & _SHORT_BITS),)),
            cid,
            ((number & mask_number) ^ mask).to_bytes(pn_length, "big"),
            body,
        )
        number += 1
        at += SAMPLE_LENGTH
    return b"".join(parts), 1 + len(cid) + pn_length + len(sealed[-1])


# --- opening ------------------------------------------------------------------------------------


class Opened(NamedTuple):
    """A packet without its protection; `payload` is None where the AEAD refused it."""

    first_byte: int
    number: int
    payload: bytes | None


def decode_number(truncated: int, pn_length: int, expected: int) -> int:
    """A packet number from its last bytes (RFC 9000 appendix A.3)."""
    window = 1 << (8 * pn_length)
    candidate = (expected & ~(window - 1)) | truncated
    if candidate <= expected - window // 2 and candidate < (1 << 62) - window:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate


def open_packet(keys: PacketKeys, packet: bytes, pn_at: int, expected: int) -> Opened | None:
    """One packet, whose number starts at `pn_at`; None when it is too short to have been sealed."""
    sample = packet[pn_at + MAX_NUMBER_LENGTH : pn_at + MAX_NUMBER_LENGTH + SAMPLE_LENGTH]
    if len(sample) < SAMPLE_LENGTH:
        return None
    mask = keys.masks([sample])
    first = packet[0]
    first ^= mask[0] & (_LONG_BITS if first & 0x80 else _SHORT_BITS)
    pn_length = (first & 0x03) + 1
    pn_end = pn_at + pn_length
    truncated = int.from_bytes(packet[pn_at:pn_end], "big") ^ int.from_bytes(
        mask[1 : 1 + pn_length], "big"
    )
    number = decode_number(truncated, pn_length, expected)
    header = bytes((first,)) + packet[1:pn_at] + truncated.to_bytes(pn_length, "big")
    try:
        payload = keys.decrypt((keys.iv ^ number).to_bytes(12, "big"), packet[pn_end:], header)
    except InvalidTag:
        return Opened(first, number, None)
    return Opened(first, number, payload)


def open_run(
    keys: PacketKeys, phase: int, datagrams: list[bytes], pn_at: int, expected: int
) -> list[Opened]:
    """Short header packets, one per datagram, whose numbers start at `pn_at`.

    Each is at least `pn_at` + 20 bytes long. Those of another key `phase` keep their payload
    sealed, as those do that fail authentication: `open_packet` with other keys may open them.
    """
    decrypt, iv = keys.decrypt, keys.iv
    sample_at = pn_at + MAX_NUMBER_LENGTH
    end = sample_at + SAMPLE_LENGTH
    masks = keys.masks([data[sample_at:end] for data in datagrams])
    opened = []
    at = 0
    for data in datagrams:
        first = data[0] ^ (masks[at] & _SHORT_BITS)
        pn_length = (first & 0x03) + 1
        pn_end = pn_at + pn_length
        truncated = int.from_bytes(data[pn_at:pn_end], "big") ^ int.from_bytes(
            masks[at + 1 : at + 1 + pn_length], "big"
        )
        at += SAMPLE_LENGTH
        number = decode_number(truncated, pn_length, expected)
        payload = None
        if (first >> 2) & 1 == phase:
            header = bytes((first,)) + data[1:pn_at] + truncated.to_bytes(pn_length, "big")
            try:
                payload = decrypt((iv ^ number).to_bytes(12, "big"), data[pn_end:], header)
            except InvalidTag:
                payload = None
            else:
                if number >= expected:
                    expected = number + 1
        opened.append(Opened(first, number, payload))
    return opened
