//! Packet protection with one key (RFC 9001 section 5): packets sealed and opened, alone or in runs.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey, quic};

use crate::frames::{
    AckFrame, Frame, Reader, StreamFrame, count_if_only_streams, covers, only_ack,
};
use crate::send_buffer::SendBuffer;

pub const TAG_LENGTH: usize = 16;
const SAMPLE_LENGTH: usize = 16;
/// Bytes of a packet number at most: the sample starts as many behind where it starts.
const MAX_NUMBER_LENGTH: usize = 4;

const LONG_HEADER: u8 = 0x80;
/// Bits of the first byte that header protection covers (RFC 9001 section 5.4.1).
const LONG_BITS: u8 = 0x0f;
const SHORT_BITS: u8 = 0x1f;
const RESERVED_BITS: u8 = 0x18;
const STREAM_KIND: u8 = 0x0c;

fn covered(first: u8) -> u8 {
    if first & LONG_HEADER != 0 { LONG_BITS } else { SHORT_BITS }
}

pub fn number_length(first: u8) -> usize {
    usize::from(first & 0x03) + 1
}

/// A packet number from its last bytes (RFC 9000 appendix A.3).
fn decode_number(truncated: u64, length: usize, expected: u64) -> u64 {
    let window = 1u64 << (8 * length);
    let half = window / 2;
    let candidate = (expected & !(window - 1)) | truncated;
    if candidate + half <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + half && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

/// The shortest form of a variable-length integer: its bytes, and how many of them count.
pub fn varint(value: u64) -> ([u8; 8], usize) {
    let (size, marked) = match value {
        0..0x40 => (1, value),
        0x40..0x4000 => (2, value | 0x4000),
        0x4000..0x4000_0000 => (4, value | 0x8000_0000),
        _ => (8, value | 0xc000_0000_0000_0000),
    };
    ((marked << (64 - 8 * size)).to_be_bytes(), size)
}

fn refused(reason: &'static str) -> PyErr {
    PyValueError::new_err(reason)
}

/// The key of one direction and phase, and the header protection of its epoch.
#[pyclass(frozen, module = "quicedge._native")]
pub struct PacketCipher {
    aead: LessSafeKey,
    hp: quic::HeaderProtectionKey,
    iv: [u8; 12],
}

/// A packet of which header protection is removed.
struct Unmasked {
    first: u8,
    number: u64,
    number_end: usize,
    /// The packet number as sent.
    sent: [u8; MAX_NUMBER_LENGTH],
}

impl PacketCipher {
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, other) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= other;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals a packet in place: its header, `head` bytes long, its payload, and room for the tag.
    fn seal(&self, packet: &mut [u8], head: usize, number: u64) -> PyResult<()> {
        let (header, rest) = packet.split_at_mut(head);
        let length = number_length(header[0]);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_LENGTH);
        let sealed = self
            .aead
            .seal_in_place_separate_tag(self.nonce(number), Aad::from(&*header), body)
            .map_err(|_| refused("payload too long"))?;
        tag.copy_from_slice(sealed.as_ref());
        let skip = MAX_NUMBER_LENGTH - length;
        let mask = rest
            .get(skip..skip + SAMPLE_LENGTH)
            .and_then(|sample| self.hp.new_mask(sample).ok())
            .ok_or_else(|| refused("payload too short"))?;
        header[0] ^= mask[0] & covered(header[0]);
        for (byte, other) in header[head - length..].iter_mut().zip(&mask[1..]) {
            *byte ^= other;
        }
        Ok(())
    }

    /// Removes header protection; None when the packet is too short to have been sealed.
    fn unmask(&self, packet: &[u8], pn_at: usize, expected: u64) -> Option<Unmasked> {
        let sample_at = pn_at.checked_add(MAX_NUMBER_LENGTH)?;
        let sample = packet.get(sample_at..sample_at.checked_add(SAMPLE_LENGTH)?)?;
        let mask = self.hp.new_mask(sample).ok()?;
        let first = packet[0] ^ (mask[0] & covered(packet[0]));
        let length = number_length(first);
        let mut sent = [0; MAX_NUMBER_LENGTH];
        let mut truncated = 0;
        for (index, byte) in packet[pn_at..pn_at + length].iter().enumerate() {
            sent[index] = byte ^ mask[1 + index];
            truncated = truncated << 8 | u64::from(sent[index]);
        }
        Some(Unmasked {
            first,
            number: decode_number(truncated, length, expected),
            number_end: pn_at + length,
            sent,
        })
    }

    /// The payload of a packet, in `scratch`; None when it is not authentic.
    fn open<'s>(
        &self,
        packet: &[u8],
        pn_at: usize,
        unmasked: &Unmasked,
        scratch: &'s mut Vec<u8>,
    ) -> Option<&'s [u8]> {
        let end = unmasked.number_end;
        scratch.clear();
        scratch.extend_from_slice(packet);
        let (header, body) = scratch.split_at_mut(end);
        header[0] = unmasked.first;
        header[pn_at..].copy_from_slice(&unmasked.sent[..end - pn_at]);
        let nonce = self.nonce(unmasked.number);
        match self.aead.open_in_place(nonce, Aad::from(&*header), body) {
            Ok(payload) => Some(payload),
            Err(_) => None,
        }
    }
}

#[pymethods]
impl PacketCipher {
    /// `suite` is TLS's number of the cipher suite.
    #[new]
    fn new(suite: u16, key: &[u8], iv: &[u8], hp: &[u8]) -> PyResult<Self> {
        let (algorithm, masks) = match suite {
            0x1301 => (&aead::AES_128_GCM, &quic::AES_128),
            0x1302 => (&aead::AES_256_GCM, &quic::AES_256),
            0x1303 => (&aead::CHACHA20_POLY1305, &quic::CHACHA20),
            _ => return Err(refused("unknown cipher suite")),
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| refused("wrong key length"))?;
        Ok(PacketCipher {
            aead: LessSafeKey::new(key),
            hp: quic::HeaderProtectionKey::new(masks, hp)
                .map_err(|_| refused("wrong key length"))?,
            iv: iv.try_into().map_err(|_| refused("wrong key length"))?,
        })
    }

    fn seal_one<'py>(
        &self,
        py: Python<'py>,
        header: &[u8],
        payload: &[u8],
        number: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let head = header.len();
        if head == 0 || head < number_length(header[0]) {
            return Err(refused("header too short"));
        }
        PyBytes::new_with(py, head + payload.len() + TAG_LENGTH, |packet| {
            packet[..head].copy_from_slice(header);
            packet[head..head + payload.len()].copy_from_slice(payload);
            self.seal(packet, head, number)
        })
    }

    fn seal_short<'py>(
        &self,
        py: Python<'py>,
        first: u8,
        cid: &[u8],
        number: u64,
        payload: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let length = number_length(first);
        let head = 1 + cid.len() + length;
        PyBytes::new_with(py, head + payload.len() + TAG_LENGTH, |packet| {
            packet[0] = first;
            packet[1..=cid.len()].copy_from_slice(cid);
            packet[1 + cid.len()..head].copy_from_slice(&number.to_be_bytes()[8 - length..]);
            packet[head..head + payload.len()].copy_from_slice(payload);
            self.seal(packet, head, number)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "a run is described by plain numbers")]
    pub fn seal_run<'py>(
        &self,
        py: Python<'py>,
        first: u8,
        cid: &[u8],
        number: u64,
        stream_id: u64,
        buffer: &Bound<'py, PyAny>,
        start: u64,
        stop: u64,
        chunk: usize,
        wide: bool,
        fin: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if start >= stop || chunk == 0 {
            return Err(refused("empty run"));
        }
        if !wide && stop > 1 << 30 {
            return Err(refused("offset too large"));
        }
        let source = Source::new(buffer, start, stop)?;
        let size = (stop - start) as usize;
        let length = number_length(first);
        let number_at = 1 + cid.len();
        let head = number_at + length;
        let (id, id_length) = varint(stream_id);
        let (offset_length, offset_mark) = if wide { (8, 3 << 62) } else { (4, 1 << 31) };
        let frame = 1 + id_length + offset_length;
        let packets = size.div_ceil(chunk);
        let total = size + packets * (head + frame + TAG_LENGTH);
        PyBytes::new_with(py, total, |joined| {
            let (mut number, mut offset) = (number, start);
            let mut rest = joined;
            while offset < stop {
                let piece = chunk.min((stop - offset) as usize);
                let packet;
                (packet, rest) = rest.split_at_mut(head + frame + piece + TAG_LENGTH);
                packet[0] = first;
                packet[1..number_at].copy_from_slice(cid);
                packet[number_at..head].copy_from_slice(&number.to_be_bytes()[8 - length..]);
                let last = rest.is_empty();
                packet[head] = STREAM_KIND | u8::from(fin && last);
                packet[head + 1..head + 1 + id_length].copy_from_slice(&id[..id_length]);
                packet[head + 1 + id_length..head + frame]
                    .copy_from_slice(&(offset | offset_mark).to_be_bytes()[8 - offset_length..]);
                if !source.copy_to(py, offset, &mut packet[head + frame..head + frame + piece]) {
                    return Err(refused("bytes that are not buffered"));
                }
                self.seal(packet, head, number)?;
                number += 1;
                offset += piece as u64;
            }
            Ok(())
        })
    }

    /// (first byte, number, payload or None); None when it is too short to have been sealed.
    fn open_one<'py>(
        &self,
        py: Python<'py>,
        packet: &[u8],
        pn_at: usize,
        expected: u64,
    ) -> Option<(u8, u64, Option<Bound<'py, PyBytes>>)> {
        let unmasked = self.unmask(packet, pn_at, expected)?;
        let mut scratch = Vec::with_capacity(packet.len());
        let payload = self.open(packet, pn_at, &unmasked, &mut scratch);
        Some((unmasked.first, unmasked.number, payload.map(|payload| PyBytes::new(py, payload))))
    }

    #[expect(clippy::too_many_arguments, reason = "a run is described by plain numbers")]
    fn open_run<'py>(
        &self,
        py: Python<'py>,
        phase: u8,
        datagrams: &Bound<'py, PyList>,
        start: usize,
        cid: &[u8],
        mut expected: u64,
        join: bool,
    ) -> PyResult<(usize, usize, Bound<'py, PyList>)> {
        let items = PyList::empty(py);
        let mut run: Option<Joined<'py>> = None;
        let mut scratch = Vec::new();
        let pn_at = 1 + cid.len();
        let (mut stop, mut nbytes) = (start, 0);
        for index in start..datagrams.len() {
            let datagram = datagrams.get_item(index)?.cast_into::<PyBytes>()?;
            let packet = datagram.as_bytes();
            if packet.len() < pn_at + MAX_NUMBER_LENGTH + SAMPLE_LENGTH
                || packet[0] & LONG_HEADER != 0
                || &packet[1..pn_at] != cid
            {
                break;
            }
            let Some(unmasked) = self.unmask(packet, pn_at, expected) else { break };
            stop += 1;
            nbytes += packet.len();
            let (first, number) = (unmasked.first, unmasked.number);
            let payload = if (first >> 2) & 1 == phase {
                self.open(packet, pn_at, &unmasked, &mut scratch)
            } else {
                None
            };
            if let Some(payload) = payload {
                let is_newest = number >= expected;
                if is_newest {
                    expected = number + 1;
                }
                if join
                    && is_newest
                    && first & RESERVED_BITS == 0
                    && let Some(content) = Content::of(payload)
                {
                    if run.as_ref().is_some_and(|run| !run.takes(number, &content))
                        && let Some(run) = run.take()
                    {
                        items.append(run.finish(py)?)?;
                    }
                    run.get_or_insert_with(|| Joined::new(py, number, &content))
                        .add(py, first, content)?;
                    continue;
                }
            }
            if let Some(run) = run.take() {
                items.append(run.finish(py)?)?;
            }
            let payload = payload.map(|payload| PyBytes::new(py, payload));
            items.append((number, number + 1, first, payload, 0, 0))?;
        }
        if let Some(run) = run.take() {
            items.append(run.finish(py)?)?;
        }
        Ok((stop, nbytes, items))
    }
}

/// The send buffer that a run takes its bytes from: compiled, or Python's.
enum Source<'py> {
    Compiled(PyRef<'py, SendBuffer>),
    Python { start: u64, data: Bound<'py, PyBytes> },
}

impl<'py> Source<'py> {
    fn new(buffer: &Bound<'py, PyAny>, start: u64, stop: u64) -> PyResult<Self> {
        if let Ok(compiled) = buffer.cast::<SendBuffer>() {
            let compiled = compiled.try_borrow()?;
            if stop > compiled.end {
                return Err(refused("bytes that are not buffered"));
            }
            return Ok(Source::Compiled(compiled));
        }
        let data: Bound<'py, PyBytes> = buffer.call_method1("read", (start, stop))?.cast_into()?;
        if stop.checked_sub(start) != Some(data.as_bytes().len() as u64) {
            return Err(refused("bytes that are not buffered"));
        }
        Ok(Source::Python { start, data })
    }

    fn copy_to(&self, py: Python<'_>, offset: u64, out: &mut [u8]) -> bool {
        match self {
            Source::Compiled(buffer) => buffer.copy_to(py, offset, out),
            Source::Python { start, data } => {
                let at = (offset - start) as usize;
                let found = data.as_bytes().get(at..at + out.len());
                if let Some(found) = found {
                    out.copy_from_slice(found);
                }
                found.is_some()
            }
        }
    }
}

/// What a packet holds that can be joined with others.
enum Content<'a> {
    /// STREAM frames, and how many frames with PADDING.
    Streams(&'a [u8], u32),
    /// One ACK frame, likewise, and whether a PING asks for an ACK in turn.
    Ack(AckFrame, u32, bool),
}

impl<'a> Content<'a> {
    fn of(payload: &'a [u8]) -> Option<Self> {
        if let Some((ack, frames, asks)) = only_ack(payload) {
            return Some(Content::Ack(ack, frames, asks));
        }
        count_if_only_streams(payload).map(|frames| Content::Streams(payload, frames))
    }
}

/// What a run holds next; see `Item` of `quicedge.quic.packet_cipher`.
type Item<'py> = (u64, u64, u8, Bound<'py, PyAny>, u32, u32);

/// Packets of consecutive numbers that hold only STREAM frames, joined to pieces of streams, or
/// only ACK frames, with or without PING, of which those remain that no later one covers.
struct Joined<'py> {
    start: u64,
    stop: u64,
    /// Of the last packet.
    first: u8,
    frames: u32,
    /// Packets that are to be acknowledged.
    eliciting: u32,
    held: Held<'py>,
}

enum Held<'py> {
    Streams { pieces: Bound<'py, PyList>, piece: Option<Piece> },
    Acks(Vec<AckFrame>),
}

/// Consecutive bytes of one stream.
struct Piece {
    stream_id: u64,
    offset: u64,
    data: Vec<u8>,
    kind: u8,
    fin: bool,
}

impl Piece {
    fn joins(&self, frame: &StreamFrame) -> bool {
        !self.fin
            && self.stream_id == frame.stream_id
            && self.offset + self.data.len() as u64 == frame.offset
    }
}

impl<'py> Joined<'py> {
    fn new(py: Python<'py>, start: u64, content: &Content) -> Self {
        let held = match content {
            Content::Streams(..) => Held::Streams { pieces: PyList::empty(py), piece: None },
            Content::Ack(..) => Held::Acks(Vec::new()),
        };
        Joined { start, stop: start, first: 0, frames: 0, eliciting: 0, held }
    }

    /// Whether packet `number` with this content goes on with what is held.
    fn takes(&self, number: u64, content: &Content) -> bool {
        let same = matches!(self.held, Held::Acks(_)) == matches!(content, Content::Ack(..));
        same && self.stop == number
    }

    fn add(&mut self, py: Python<'py>, first: u8, content: Content) -> PyResult<()> {
        self.stop += 1;
        self.first = first;
        match (&mut self.held, content) {
            (Held::Acks(acks), Content::Ack(ack, frames, asks)) => {
                self.frames += frames;
                self.eliciting += u32::from(asks);
                if acks.last().is_some_and(|last| covers(&ack.1, &last.1)) {
                    acks.pop();
                }
                acks.push(ack);
            }
            (Held::Streams { pieces, piece }, Content::Streams(payload, frames)) => {
                self.frames += frames;
                self.eliciting += 1;
                for frame in Reader::new(payload) {
                    let Some(Frame::Stream(frame)) = frame else { continue };
                    match piece {
                        Some(piece) if piece.joins(&frame) => {
                            piece.data.extend_from_slice(frame.data);
                            piece.kind = frame.kind;
                            piece.fin = frame.fin();
                        }
                        _ => {
                            end_piece(py, pieces, piece)?;
                            *piece = Some(Piece {
                                stream_id: frame.stream_id,
                                offset: frame.offset,
                                data: frame.data.to_vec(),
                                kind: frame.kind,
                                fin: frame.fin(),
                            });
                        }
                    }
                }
            }
            _ => unreachable!("`takes` was asked"),
        }
        Ok(())
    }

    fn finish(self, py: Python<'py>) -> PyResult<Item<'py>> {
        let content = match self.held {
            Held::Streams { pieces, mut piece } => {
                end_piece(py, &pieces, &mut piece)?;
                pieces.into_any()
            }
            Held::Acks(acks) => PyTuple::new(py, acks)?.into_any(),
        };
        Ok((self.start, self.stop, self.first, content, self.frames, self.eliciting))
    }
}

fn end_piece<'py>(
    py: Python<'py>,
    pieces: &Bound<'py, PyList>,
    piece: &mut Option<Piece>,
) -> PyResult<()> {
    if let Some(piece) = piece.take() {
        let data = PyBytes::new(py, &piece.data);
        pieces.append((piece.stream_id, piece.offset, data, piece.fin, piece.kind))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_completed_as_appendix_a_3_says() {
        assert_eq!(decode_number(0x9b32, 2, 0xa82f_30ea + 1), 0xa82f_9b32);
        assert_eq!(decode_number(0xff, 1, 0x100), 0xff);
        assert_eq!(decode_number(0, 1, 0xff), 0x100);
    }

    #[test]
    fn integers_take_their_shortest_form() {
        assert_eq!(varint(63), ([63, 0, 0, 0, 0, 0, 0, 0], 1));
        assert_eq!(varint(64).0[..2], [0x40, 64]);
        assert_eq!(varint(16384).0[..4], [0x80, 0, 0x40, 0]);
        assert_eq!(varint(1 << 30).1, 8);
    }
}
