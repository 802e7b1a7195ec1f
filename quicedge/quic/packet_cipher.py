"""Packets sealed and opened with one key (RFC 9001 section 5), alone or in runs.

This class and its compiled twin (`native/src/cipher.rs`) alone touch AEAD and header protection.
Runs are bytes and integers: in Python, the AEAD packet by packet, and header protection in one call
of the cipher for the whole run.
"""

from __future__ import annotations

from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from quicedge import native
from quicedge.quic.frames import (
    STREAM_OFFSET,
    Counts,
    FrameError,
    FrameType,
    Stream,
    encode_varint,
    parse_ack,
)
from quicedge.quic.ranges import covers

TAG_LENGTH = 16
SAMPLE_LENGTH = 16
MAX_NUMBER_LENGTH = 4
"""Bytes of a packet number at most: the sample starts as many behind where it starts."""

Opened = tuple[int, int, bytes | None]
"""First byte, packet number and payload; None instead of a payload that is not authentic."""

Piece = tuple[int, int, bytes, bool, int]
"""Consecutive bytes of a stream: its ID, their offset, the bytes, whether they end the stream, and
the type of the last frame that they came in."""

AckFields = tuple[int, list[tuple[int, int]], int, Counts | None]
"""An ACK frame: its type, ranges in ascending order, delay and ECN counts."""

Item = tuple[int, int, int, bytes | list[Piece] | tuple[AckFields, ...] | None, int, int]
"""What a run holds next: first packet number and the one behind the last, the (last) first byte,
and what was in it. Bytes are the payload of one packet, None one that was not opened. A list of
pieces is the content of packets that held nothing but stream data, a tuple of ACK frames that of
packets with nothing else but PING; either is followed by their number of frames and of
ack-eliciting packets."""

_CHACHA20 = 0x1303
_KEY_LENGTHS = {0x1301: 16, 0x1302: 32, _CHACHA20: 32}
"""By TLS's numbers of cipher suites (RFC 8446 appendix B.4)."""
_IV_LENGTH = 12
_LONG_BITS, _SHORT_BITS = 0x0F, 0x1F
"""Bits of the first byte that header protection covers (RFC 9001 section 5.4.1)."""
_RESERVED_BITS = 0x18
_ECB = modes.ECB()  # RFC 9001 section 5.4.3 masks headers with single blocks
_ACK, _ACK_ECN, _PING = int(FrameType.ACK), int(FrameType.ACK_ECN), int(FrameType.PING)
_STREAM, _STREAM_LAST = int(FrameType.STREAM), int(FrameType.STREAM_LAST)
_parse_stream = Stream.parse


def decode_number(truncated: int, pn_length: int, expected: int) -> int:
    """A packet number from its last bytes (RFC 9000 appendix A.3)."""
    window = 1 << (8 * pn_length)
    candidate = (expected & ~(window - 1)) | truncated
    if candidate <= expected - window // 2 and candidate < (1 << 62) - window:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate


class Readable(Protocol):
    """A send buffer (`connection.send_buffer`)."""

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop - 1` of the stream; raises ValueError if they are not there."""


@native.twin
class PacketCipher:
    """The key of one direction and phase, and the header protection of its epoch.

    Sealing raises ValueError for what cannot be a packet: a payload too short to be sampled, an
    offset that does not fit.
    """

    __slots__ = ("_chacha20", "_decrypt", "_encrypt", "_hp", "_iv")

    def __init__(self, suite: int, key: bytes, iv: bytes, hp: bytes) -> None:
        """`suite` is TLS's number of the cipher suite."""
        length = _KEY_LENGTHS.get(suite)
        if length is None:
            raise ValueError("unknown cipher suite")
        if len(key) != length or len(hp) != length or len(iv) != _IV_LENGTH:
            raise ValueError("wrong key length")
        self._chacha20 = suite == _CHACHA20
        aead = ChaCha20Poly1305(key) if self._chacha20 else AESGCM(key)
        self._encrypt, self._decrypt = aead.encrypt, aead.decrypt
        self._iv = int.from_bytes(iv, "big")
        if self._chacha20:
            # Its nonce is set anew for each packet.
            self._hp = Cipher(algorithms.ChaCha20(hp, bytes(16)), mode=None).encryptor()
        else:
            self._hp = Cipher(algorithms.AES(hp), _ECB).encryptor()

    def _masks(self, samples: list[bytes]) -> bytes:
        """Header protection masks, 16 bytes each of which the first five count."""
        hp = self._hp
        if not self._chacha20:
            return hp.update(b"".join(samples))
        parts = []
        for sample in samples:
            hp.reset_nonce(sample)
            parts.append(hp.update(bytes(SAMPLE_LENGTH)))
        return b"".join(parts)

    # --- sealing --------------------------------------------------------------------------------

    def seal_one(self, header: bytes, payload: bytes, number: int) -> bytes:
        """One packet; `header` ends with the packet number in the length that its first byte
        tells."""
        first = header[0] if header else 0xFF
        pn_length = (first & 0x03) + 1
        if len(header) < pn_length:
            raise ValueError("header too short")
        skip = MAX_NUMBER_LENGTH - pn_length
        if len(payload) < skip:
            raise ValueError("payload too short")
        body = self._encrypt((self._iv ^ number).to_bytes(12, "big"), payload, header)
        mask = self._masks([body[skip : skip + SAMPLE_LENGTH]])
        pn_at = len(header) - pn_length
        masked = int.from_bytes(header[pn_at:], "big") ^ int.from_bytes(
            mask[1 : 1 + pn_length], "big"
        )
        covered = _LONG_BITS if first & 0x80 else _SHORT_BITS
        return b"".join((
            bytes((first ^ (mask[0] & covered),)), header[1:pn_at],
            masked.to_bytes(pn_length, "big"), body,
        ))  # fmt: skip

    def seal_short(self, first_byte: int, cid: bytes, number: int, payload: bytes) -> bytes:
        """One packet with a short header."""
        pn_length = (first_byte & 0x03) + 1
        truncated = number & ((1 << 8 * pn_length) - 1)
        header = bytes((first_byte,)) + cid + truncated.to_bytes(pn_length, "big")
        return self.seal_one(header, payload, number)

    def seal_run(
        self,
        first_byte: int,
        cid: bytes,
        number: int,
        stream_id: int,
        buffer: Readable,
        start: int,
        stop: int,
        chunk: int,
        wide: bool,
        fin: bool,
    ) -> bytes:
        """Short header packets of consecutive numbers, joined, each with one STREAM frame.

        Bytes `start` to `stop - 1` of the stream, which `buffer` holds, go out in chunks; `fin` is
        for the last one. Offsets take 8 bytes where they are `wide`, else 4: one width per run
        keeps all its packets but the last the same size.
        """
        if start >= stop or not chunk:
            raise ValueError("empty run")
        if not wide and stop > 1 << 30:
            raise ValueError("offset too large")
        data = buffer.read(start, stop)
        size = stop - start
        encrypt, iv = self._encrypt, self._iv
        pn_length = (first_byte & 0x03) + 1
        mask_number = (1 << 8 * pn_length) - 1
        prefix = bytes((first_byte,)) + cid
        kind = FrameType.STREAM | STREAM_OFFSET
        frame = bytes((kind,)) + encode_varint(stream_id)
        offset_length, offset_mark = (8, 3 << 62) if wide else (4, 1 << 31)
        at = number
        sealed = []
        with memoryview(data) as view:
            for begin in range(0, size, chunk):
                end = begin + chunk
                if end >= size:
                    end = size
                    frame = bytes((kind | fin,)) + frame[1:]
                header = prefix + (at & mask_number).to_bytes(pn_length, "big")
                where = (start + begin | offset_mark).to_bytes(offset_length, "big")
                payload = b"".join((frame, where, view[begin:end]))
                sealed.append(encrypt((iv ^ at).to_bytes(12, "big"), payload, header))
                at += 1
        skip = MAX_NUMBER_LENGTH - pn_length
        masks = self._masks([body[skip : skip + SAMPLE_LENGTH] for body in sealed])
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
        return b"".join(parts)

    # --- opening --------------------------------------------------------------------------------

    def open_one(self, packet: bytes, pn_at: int, expected: int) -> Opened | None:
        """One packet, whose number starts at `pn_at`; None when it is too short to have been
        sealed."""
        sample = packet[pn_at + MAX_NUMBER_LENGTH : pn_at + MAX_NUMBER_LENGTH + SAMPLE_LENGTH]
        if len(sample) < SAMPLE_LENGTH:
            return None
        mask = self._masks([sample])
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
            payload = self._decrypt(
                (self._iv ^ number).to_bytes(12, "big"), packet[pn_end:], header
            )
        except InvalidTag:
            return first, number, None
        return first, number, payload

    def open_run(
        self,
        phase: int,
        datagrams: list[bytes],
        start: int,
        cid: bytes,
        expected: int,
        join: bool,
    ) -> tuple[int, int, list[Item]]:
        """The short header packets to `cid` that lead `datagrams` from index `start` on, one per
        datagram; returns the index behind them, their size in bytes, and what is in them.

        Packets of another key `phase` and those not authentic are not opened: `open_one` with other
        keys may open them. With `join`, packets of ascending numbers that hold only STREAM frames,
        or only ACK frames, are joined; what they say is otherwise the same.
        """
        decrypt, iv = self._decrypt, self._iv
        pn_at = 1 + len(cid)
        sample_at = pn_at + MAX_NUMBER_LENGTH
        end = sample_at + SAMPLE_LENGTH
        samples = []
        nbytes = 0
        for data in datagrams[start:] if start else datagrams:
            if len(data) < end or data[0] & 0x80 or data[1:pn_at] != cid:
                break
            samples.append(data[sample_at:end])
            nbytes += len(data)
        stop = start + len(samples)
        masks = self._masks(samples)
        items: list[Item] = []
        run: _StreamRun | _AckRun | None = None
        at = 0
        for data in datagrams[start:stop]:
            first = data[0] ^ (masks[at] & _SHORT_BITS)
            pn_length = (first & 0x03) + 1
            pn_end = pn_at + pn_length
            truncated = int.from_bytes(data[pn_at:pn_end], "big") ^ int.from_bytes(
                masks[at + 1 : at + 1 + pn_length], "big"
            )
            number = decode_number(truncated, pn_length, expected)
            payload = None
            if (first >> 2) & 1 == phase:
                header = bytes((first,)) + cid + truncated.to_bytes(pn_length, "big")
                try:
                    payload = decrypt((iv ^ number).to_bytes(12, "big"), data[pn_end:], header)
                except InvalidTag:
                    payload = None
            at += SAMPLE_LENGTH
            if payload is not None and number >= expected:
                expected = number + 1
                if join and payload and not first & _RESERVED_BITS:
                    kind: type[_StreamRun | _AckRun]
                    content: Any
                    if payload[0] == _ACK or payload[0] == _ACK_ECN:
                        kind, content = _AckRun, _only_ack(payload)
                    else:
                        kind, content = _StreamRun, _only_streams(payload)
                    if content is not None:
                        if run is not None and (run.stop != number or type(run) is not kind):
                            items.append(run.finish())
                            run = None
                        if run is None:
                            run = kind(number)
                        run.add(first, *content)
                        continue
            if run is not None:
                items.append(run.finish())
                run = None
            items.append((number, number + 1, first, payload, 0, 0))
        if run is not None:
            items.append(run.finish())
        return stop, nbytes, items


def _only_ack(payload: bytes) -> tuple[AckFields, int, bool] | None:
    """The ACK frame that a packet starts with, its number of frames, and whether PING is among
    them; None for a packet that holds anything else but PADDING, and for a malformed one."""
    kind = payload[0]
    found = parse_ack(payload, 1, kind)
    if found is None:
        return None
    ranges, delay, ecn, at = found
    count, asks = 1, False
    end = len(payload)
    while at < end:
        count += 1
        if payload[at] == _PING:
            asks = True
            at += 1
        elif payload[at]:
            return None
        else:
            at = end - len(payload[at:].lstrip(b"\0"))
    return (kind, ranges, delay, ecn), count, asks


def is_ack_with_ping(payload: bytes) -> bool:
    """Whether a packet holds an ACK frame and PING, and nothing else but PADDING."""
    found = _only_ack(payload) if payload[0] in (_ACK, _ACK_ECN) else None
    return found is not None and found[2]


class _AckRun:
    """Packets of consecutive numbers that hold only an ACK frame, and PING; those frames remain
    that no later one covers."""

    __slots__ = ("_acks", "_eliciting", "_first", "_frames", "_start", "stop")

    def __init__(self, start: int) -> None:
        self._start = self.stop = start
        self._first = self._frames = self._eliciting = 0
        self._acks: list[AckFields] = []

    def add(self, first: int, ack: AckFields, count: int, asks: bool) -> None:
        """The next packet: its first byte, its ACK frame, the number of all frames, and whether it
        is ack-eliciting."""
        self.stop += 1
        self._first = first
        self._frames += count
        self._eliciting += asks
        if self._acks and covers(ack[1], self._acks[-1][1]):
            self._acks.pop()
        self._acks.append(ack)

    def finish(self) -> Item:
        return (
            self._start, self.stop, self._first, tuple(self._acks), self._frames, self._eliciting
        )  # fmt: skip


def _only_streams(payload: bytes) -> tuple[list[tuple[Stream, int]], int] | None:
    """The STREAM frames, with their types, of a packet that holds nothing else but PADDING, and its
    number of frames; None for any other packet, and for a malformed one."""
    frames: list[tuple[Stream, int]] = []
    at, end = 0, len(payload)
    count = 0
    try:
        while at < end:
            kind = payload[at]
            count += 1
            if _STREAM <= kind <= _STREAM_LAST:
                frame, at = _parse_stream(payload, at + 1, kind)
                frames.append((frame, kind))
            elif kind:
                return None
            else:
                at = end - len(payload[at:].lstrip(b"\0"))
    except FrameError:
        return None
    return (frames, count) if frames else None


class _StreamRun:
    """Packets of consecutive numbers that hold only STREAM frames, joined to pieces of streams."""

    __slots__ = ("_chunks", "_fin", "_first", "_frames", "_kind", "_offset", "_pieces", "_start",
                 "_stream_id", "_until", "stop")  # fmt: skip

    def __init__(self, start: int) -> None:
        self._start = self.stop = start
        self._first = self._frames = 0
        self._pieces: list[Piece] = []
        # the piece that may go on
        self._chunks: list[bytes] = []
        self._stream_id = self._until = -1
        self._offset = self._kind = 0
        self._fin = False

    def add(self, first: int, frames: list[tuple[Stream, int]], count: int) -> None:
        """The next packet: its first byte, its STREAM frames, and the number of all."""
        self.stop += 1
        self._first = first
        self._frames += count
        for frame, kind in frames:
            if frame.offset == self._until and frame.stream_id == self._stream_id:
                self._chunks.append(frame.data)
            else:
                self._end_piece()
                self._stream_id, self._offset = frame.stream_id, frame.offset
                self._chunks = [frame.data]
            self._kind, self._fin = kind, frame.fin
            # Nothing joins the end of a stream.
            self._until = -1 if frame.fin else frame.offset + len(frame.data)

    def _end_piece(self) -> None:
        chunks = self._chunks
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._pieces.append((self._stream_id, self._offset, data, self._fin, self._kind))

    def finish(self) -> Item:
        self._end_piece()
        packets = self.stop - self._start
        return self._start, self.stop, self._first, self._pieces, self._frames, packets
