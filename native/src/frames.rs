//! The frames of bulk transfers: STREAM, in runs of packets that hold nothing else, and ACK.

use pyo3::prelude::*;

use crate::ranges::Span;

const MAX_VARINT: u64 = (1 << 62) - 1;

const PADDING: u8 = 0x00;
const PING: u8 = 0x01;
const STREAM: u8 = 0x08;
const STREAM_FIN: u8 = 0x01;
const STREAM_LENGTH: u8 = 0x02;
const STREAM_OFFSET: u8 = 0x04;
const ACK: u8 = 0x02;
const ACK_ECN: u8 = 0x03;

/// Reads a packet's payload from its start.
pub struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Reader { data, at: 0 }
    }

    /// A variable-length integer (RFC 9000 section 16); None when it is cut short.
    fn varint(&mut self) -> Option<u64> {
        let first = *self.data.get(self.at)?;
        let size = 1usize << (first >> 6);
        let rest = self.data.get(self.at + 1..self.at + size)?;
        self.at += size;
        let first = u64::from(first & 0x3f);
        Some(rest.iter().fold(first, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let found = self.data.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(found)
    }

    fn skip_padding(&mut self) {
        let rest = &self.data[self.at..];
        self.at += rest.iter().position(|byte| *byte != 0).unwrap_or(rest.len());
    }
}

/// A STREAM frame (RFC 9000 section 19.8).
pub struct StreamFrame<'a> {
    pub kind: u8,
    pub stream_id: u64,
    pub offset: u64,
    pub data: &'a [u8],
}

impl StreamFrame<'_> {
    pub fn fin(&self) -> bool {
        self.kind & STREAM_FIN != 0
    }
}

pub enum Frame<'a> {
    Padding,
    Stream(StreamFrame<'a>),
}

impl<'a> Iterator for Reader<'a> {
    /// None for a frame of another type, or a malformed one.
    type Item = Option<Frame<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.data.get(self.at)?;
        if kind == PADDING {
            self.skip_padding();
            return Some(Some(Frame::Padding));
        }
        if !(STREAM..STREAM + 8).contains(&kind) {
            return Some(None);
        }
        self.at += 1;
        Some(self.stream(kind).map(Frame::Stream))
    }
}

impl<'a> Reader<'a> {
    /// The rest of a STREAM frame, behind its type.
    fn stream(&mut self, kind: u8) -> Option<StreamFrame<'a>> {
        let stream_id = self.varint()?;
        let offset = if kind & STREAM_OFFSET != 0 { self.varint()? } else { 0 };
        let length = if kind & STREAM_LENGTH != 0 {
            self.varint()?
        } else {
            (self.data.len() - self.at) as u64
        };
        let data = self.bytes(length)?;
        // A sum of two integers below 2^62 fits.
        (offset + length <= MAX_VARINT).then_some(StreamFrame { kind, stream_id, offset, data })
    }
}

/// The number of frames of a packet with STREAM frames, and PADDING, and nothing else. None for
/// any other packet, and for a malformed one. Consecutive PADDING counts as one frame.
pub fn count_if_only_streams(payload: &[u8]) -> Option<u32> {
    let (mut frames, mut streams) = (0, false);
    for frame in Reader::new(payload) {
        frames += 1;
        streams |= matches!(frame?, Frame::Stream(_));
    }
    streams.then_some(frames)
}

/// An ACK frame (RFC 9000 section 19.3): type, ranges in ascending order, delay, ECN counts.
pub type AckFrame = (u8, Vec<Span>, u64, Option<(u64, u64, u64)>);

impl Reader<'_> {
    /// The rest of an ACK frame of type `kind`, behind its type.
    fn ack(&mut self, kind: u8) -> Option<AckFrame> {
        let largest = self.varint()?;
        let delay = self.varint()?;
        let count = self.varint()?;
        let mut start = largest.checked_sub(self.varint()?)?;
        // Each further range takes at least two bytes, which bounds what a count can ask for.
        let mut ranges = vec![(start, largest + 1)];
        for _ in 0..count {
            let stop = start.checked_sub(self.varint()? + 1)?;
            start = stop.checked_sub(self.varint()? + 1)?;
            ranges.push((start, stop));
        }
        ranges.reverse();
        let ecn = if kind == ACK_ECN {
            Some((self.varint()?, self.varint()?, self.varint()?))
        } else {
            None
        };
        Some((kind, ranges, delay, ecn))
    }
}

/// The ACK frame that a packet starts with, its number of frames, and whether PING is among them;
/// None for a packet that holds anything else but PADDING, and for a malformed one.
pub fn only_ack(payload: &[u8]) -> Option<(AckFrame, u32, bool)> {
    let kind = *payload.first()?;
    if kind != ACK && kind != ACK_ECN {
        return None;
    }
    let mut reader = Reader { data: payload, at: 1 };
    let ack = reader.ack(kind)?;
    let (mut frames, mut asks) = (1, false);
    while let Some(&kind) = payload.get(reader.at) {
        frames += 1;
        match kind {
            PADDING => reader.skip_padding(),
            PING => {
                asks = true;
                reader.at += 1;
            }
            _ => return None,
        }
    }
    Some((ack, frames, asks))
}

/// Whether ascending ranges contain all the older ones.
pub fn covers(ranges: &[Span], older: &[Span]) -> bool {
    let mut later = ranges.iter();
    let mut range = later.next();
    older.iter().all(|old| {
        while range.is_some_and(|range| range.1 < old.1) {
            range = later.next();
        }
        range.is_some_and(|range| range.0 <= old.0)
    })
}

/// Ranges in ascending order, the delay, ECN counts, and where the frame ends.
type Ack = (Vec<Span>, u64, Option<(u64, u64, u64)>, usize);

/// The ACK frame of type `kind` whose fields start at `at`; None when it is malformed.
#[pyfunction]
pub fn parse_ack(payload: &[u8], at: usize, kind: u8) -> Option<Ack> {
    let mut reader = Reader { data: payload, at };
    let (_, ranges, delay, ecn) = reader.ack(kind)?;
    Some((ranges, delay, ecn, reader.at))
}
