//! Stream data written by the application, kept as it was written until it is acknowledged.

use std::collections::VecDeque;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::ranges::Ranges;

/// Bytes below which pieces are joined (`quicedge.config.limits.SEND_BUFFER_JOINED`).
const JOINED: usize = 1024;

enum Piece {
    Written(Py<PyBytes>),
    Joined(Vec<u8>),
}

struct Chunk {
    start: u64,
    piece: Piece,
}

impl Chunk {
    fn bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match &self.piece {
            Piece::Written(data) => data.as_bytes(py),
            Piece::Joined(data) => data,
        }
    }
}

/// Send state of one stream or CRYPTO stream (`quicedge.quic.connection.send_buffer`).
#[pyclass(module = "quicedge._native")]
#[derive(Default)]
pub struct SendBuffer {
    #[pyo3(get)]
    base: u64,
    #[pyo3(get)]
    pub end: u64,
    #[pyo3(get)]
    pub highest: u64,
    #[pyo3(get)]
    pub fin_offset: Option<u64>,
    #[pyo3(get)]
    fin_pending: bool,
    fin_acked: bool,
    pub pending: Ranges,
    acked: Ranges,
    chunks: VecDeque<Chunk>,
}

impl SendBuffer {
    /// Copies the bytes from `start` on to `out`; false for bytes that are not buffered.
    pub fn copy_to(&self, py: Python<'_>, start: u64, mut out: &mut [u8]) -> bool {
        let next = self.chunks.partition_point(|chunk| chunk.start <= start);
        let Some(index) = next.checked_sub(1) else { return out.is_empty() };
        let mut skip = (start - self.chunks[index].start) as usize;
        for chunk in self.chunks.range(index..) {
            let Some(found) = chunk.bytes(py).get(skip..) else { return out.is_empty() };
            let size = found.len().min(out.len());
            let (filled, rest) = out.split_at_mut(size);
            filled.copy_from_slice(&found[..size]);
            out = rest;
            if out.is_empty() {
                return true;
            }
            skip = 0;
        }
        out.is_empty()
    }

    /// All bytes below `stop` are acknowledged.
    fn release(&mut self, py: Python<'_>, stop: u64) {
        self.base = stop;
        while self
            .chunks
            .front()
            .is_some_and(|chunk| chunk.start + chunk.bytes(py).len() as u64 <= stop)
        {
            self.chunks.pop_front();
        }
    }
}

#[pymethods]
impl SendBuffer {
    #[new]
    fn new() -> Self {
        SendBuffer::default()
    }

    fn write(&mut self, data: &Bound<'_, PyBytes>, fin: bool) -> PyResult<()> {
        if self.fin_offset.is_some() {
            return Err(PyValueError::new_err("cannot write after the end of the stream"));
        }
        let bytes = data.as_bytes();
        if !bytes.is_empty() {
            let start = self.end;
            self.end += bytes.len() as u64;
            self.pending.add(start, self.end);
            match self.chunks.back_mut() {
                _ if bytes.len() >= JOINED => {
                    let piece = Piece::Written(data.clone().unbind());
                    self.chunks.push_back(Chunk { start, piece });
                }
                Some(Chunk { piece: Piece::Joined(last), .. }) if last.len() < JOINED => {
                    last.extend_from_slice(bytes);
                }
                _ => self.chunks.push_back(Chunk { start, piece: Piece::Joined(bytes.to_vec()) }),
            }
        }
        if fin {
            self.fin_offset = Some(self.end);
            self.fin_pending = true;
        }
        Ok(())
    }

    #[getter]
    fn pending(&self) -> Option<(u64, u64)> {
        self.pending.first()
    }

    #[getter]
    pub fn has_pending(&self) -> bool {
        self.fin_pending || !self.pending.is_empty()
    }

    #[getter]
    fn is_acknowledged(&self) -> bool {
        self.fin_acked && Some(self.base) == self.fin_offset
    }

    #[getter]
    fn unsent(&self) -> u64 {
        self.end - self.highest
    }

    fn sendable_until(&self, limit: u64, credit: i64) -> Option<u64> {
        let Some((start, stop)) = self.pending.first() else {
            return self.fin_pending.then_some(self.end);
        };
        let until = stop.min(limit).min(self.highest.saturating_add_signed(credit));
        (until > start).then_some(until)
    }

    fn read<'py>(&self, py: Python<'py>, start: u64, stop: u64) -> PyResult<Bound<'py, PyBytes>> {
        let refused = || PyValueError::new_err("bytes that are not buffered");
        if start >= stop {
            return Ok(PyBytes::new(py, b""));
        }
        if stop > self.end {
            return Err(refused());
        }
        PyBytes::new_with(py, (stop - start) as usize, |out| {
            self.copy_to(py, start, out).then_some(()).ok_or_else(refused)
        })
    }

    pub fn take(&mut self, start: u64, stop: u64) -> bool {
        if stop > start {
            self.pending.subtract(start, stop);
            self.highest = self.highest.max(stop);
        }
        let fin = Some(stop) == self.fin_offset;
        if fin {
            self.fin_pending = false;
        }
        fin
    }

    fn acked(&mut self, py: Python<'_>, start: u64, stop: u64, fin: bool) {
        self.fin_acked |= fin;
        if stop <= self.base || start == stop {
            return;
        }
        // A probe may have made them pending again.
        self.pending.subtract(start, stop);
        if start <= self.base && self.acked.is_empty() {
            self.release(py, stop);
            return;
        }
        self.acked.add(start.max(self.base), stop);
        if self.acked.first().is_some_and(|first| first.0 == self.base)
            && let Some((_, stop)) = self.acked.pop_first()
        {
            self.release(py, stop);
        }
    }

    fn lost(&mut self, start: u64, stop: u64, fin: bool) {
        if fin && !self.fin_acked {
            self.fin_pending = true;
        }
        let start = start.max(self.base);
        if start >= stop {
            return;
        }
        self.pending.add(start, stop);
        for &(start, stop) in self.acked.overlapping(start, stop) {
            self.pending.subtract(start, stop);
        }
    }

    fn repeat(&mut self) {
        self.lost(self.base, self.highest, false);
    }

    fn discard(&mut self) {
        self.pending.clear();
        self.fin_pending = false;
        self.chunks = VecDeque::new();
    }
}
