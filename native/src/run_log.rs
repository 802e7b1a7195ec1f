//! Runs of packets in flight: a few numbers per run, settled by ranges of packet numbers.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes};

use crate::cipher::{PacketCipher, TAG_LENGTH, number_length, varint};
use crate::ranges::Span;
use crate::send_buffer::SendBuffer;

/// Bytes of a stream that packets carried: stream, start, end, whether they include its end.
type Piece = (Py<PyAny>, u64, u64, bool);

/// What was acknowledged; see `Settled` of `quicedge.quic.connection.sent_packets`.
type Settled = (Vec<Span>, Vec<Piece>, u64, u64, f64, u64, f64, bool);

/// What was lost; see `Lost` there.
type Lost = (u64, u64, f64, u64, u64, Option<Piece>);

/// A run that was sent; see `SentRun` there.
type SentRun<'py> = (Bound<'py, PyBytes>, u64, u64, u64, bool, u64, u64, u64, u64, bool);

/// Packets `first` to `stop - 1`, each but the last with `chunk` bytes of `stream`.
struct Run {
    first: u64,
    stop: u64,
    stream: Py<PyAny>,
    start: u64,
    end: u64,
    chunk: u64,
    fin: bool,
    size: u64,
    last_size: u64,
    sent_time: f64,
    delivered: u64,
    delivered_time: f64,
    app_limited: bool,
    resent: bool,
}

impl Run {
    fn wire_bytes(&self) -> u64 {
        (self.stop - self.first - 1) * self.size + self.last_size
    }

    fn largest(&self) -> u64 {
        if self.stop - self.first > 1 { self.size } else { self.last_size }
    }

    fn piece(&self, py: Python<'_>) -> Piece {
        (self.stream.clone_ref(py), self.start, self.end, self.fin)
    }

    /// Ends the run at packet `number`, which is within it, and returns the rest.
    fn split(&mut self, py: Python<'_>, number: u64) -> Run {
        let cut = self.start + (number - self.first) * self.chunk;
        let rest = Run { first: number, start: cut, stream: self.stream.clone_ref(py), ..*self };
        self.stop = number;
        self.end = cut;
        self.fin = false;
        self.last_size = self.size;
        rest
    }
}

/// Runs of packets in flight (`quicedge.quic.connection.sent_packets`).
#[pyclass(module = "quicedge._native")]
#[derive(Default)]
pub struct RunLog {
    /// Of ascending and disjoint packet numbers.
    runs: Vec<Run>,
}

impl RunLog {
    /// Removes and returns the packets in ascending, disjoint ranges.
    fn take(&mut self, py: Python<'_>, ranges: &[Span]) -> Vec<Run> {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Vec::new() };
        let from = self.runs.partition_point(|run| run.stop <= first.0);
        let until = self.runs.partition_point(|run| run.first < last.1);
        if from >= until {
            return Vec::new();
        }
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        let mut index = 0;
        for mut run in self.runs.drain(from..until) {
            while ranges.get(index).is_some_and(|range| range.1 <= run.first) {
                index += 1;
            }
            let mut at = index;
            loop {
                let Some(&(start, stop)) = ranges.get(at).filter(|range| range.0 < run.stop) else {
                    kept.push(run);
                    break;
                };
                if start > run.first {
                    let rest = run.split(py, start);
                    kept.push(run);
                    run = rest;
                }
                if stop >= run.stop {
                    taken.push(run);
                    break;
                }
                let rest = run.split(py, stop);
                taken.push(run);
                run = rest;
                at += 1;
            }
        }
        self.runs.splice(from..from, kept);
        taken
    }

    fn unrepeated(&self) -> Option<usize> {
        self.runs.iter().position(|run| !run.resent)
    }

    fn push(&mut self, run: Run) -> PyResult<()> {
        if run.first >= run.stop || self.runs.last().is_some_and(|last| last.stop > run.first) {
            return Err(PyValueError::new_err("packet numbers not in order"));
        }
        self.runs.push(run);
        Ok(())
    }
}

#[pymethods]
impl RunLog {
    #[new]
    fn new() -> Self {
        RunLog::default()
    }

    fn __bool__(&self) -> bool {
        !self.runs.is_empty()
    }

    #[expect(clippy::too_many_arguments, reason = "a run is described by plain numbers")]
    fn append(
        &mut self,
        first: u64,
        stop: u64,
        stream: Py<PyAny>,
        start: u64,
        end: u64,
        chunk: u64,
        fin: bool,
        size: u64,
        last_size: u64,
        sent_time: f64,
        delivered: u64,
        delivered_time: f64,
        app_limited: bool,
    ) -> PyResult<()> {
        self.push(Run {
            first,
            stop,
            stream,
            start,
            end,
            chunk,
            fin,
            size,
            last_size,
            sent_time,
            delivered,
            delivered_time,
            app_limited,
            resent: false,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "a run is described by plain numbers")]
    fn send<'py>(
        &mut self,
        py: Python<'py>,
        cipher: &Bound<'py, PyAny>,
        first_byte: u8,
        cid: &[u8],
        number: u64,
        stream: Py<PyAny>,
        stream_id: u64,
        buffer: &Bound<'py, SendBuffer>,
        until: u64,
        size: u64,
        most: u64,
        sent_time: f64,
        delivered: u64,
        delivered_time: f64,
        app_limited: bool,
    ) -> PyResult<Option<SentRun<'py>>> {
        let (start, fin_offset) = {
            let buffer = buffer.try_borrow()?;
            let Some((start, _)) = buffer.pending.first() else { return Ok(None) };
            (start, buffer.fin_offset)
        };
        // One width of offsets per run keeps all its packets but the last the same size.
        let wide = until >= 1 << 30;
        let frame = 1 + varint(stream_id).1 + if wide { 8 } else { 4 };
        let overhead = (1 + cid.len() + number_length(first_byte) + frame + TAG_LENGTH) as u64;
        let chunk = size.saturating_sub(overhead);
        let left = until.saturating_sub(start);
        if chunk == 0 || left == 0 {
            return Ok(None);
        }
        let packets = left.div_ceil(chunk).min(most);
        if packets == 0 || (packets == 1 && left < chunk) {
            return Ok(None);
        }
        let end = until.min(start + packets * chunk);
        let fin = Some(end) == fin_offset;
        let data = if let Ok(cipher) = cipher.cast::<PacketCipher>() {
            cipher.get().seal_run(
                py,
                first_byte,
                cid,
                number,
                stream_id,
                buffer.as_any(),
                start,
                end,
                chunk as usize,
                wide,
                fin,
            )?
        } else {
            // A stand-in of a test.
            let run = (first_byte, cid, number, stream_id, buffer, start, end, chunk, wide, fin);
            cipher.call_method1("seal_run", run)?.cast_into()?
        };
        let last_size = overhead + end - start - (packets - 1) * chunk;
        self.push(Run {
            first: number,
            stop: number + packets,
            stream,
            start,
            end,
            chunk,
            fin,
            size,
            last_size,
            sent_time,
            delivered,
            delivered_time,
            app_limited,
            resent: false,
        })?;
        let mut buffer = buffer.try_borrow_mut()?;
        let fresh = end.saturating_sub(buffer.highest);
        buffer.take(start, end);
        let more = buffer.has_pending();
        Ok(Some((
            data,
            packets,
            start,
            end,
            fin,
            chunk,
            last_size,
            fresh,
            end - start - fresh,
            more,
        )))
    }

    /// Number of the oldest packet in flight.
    #[getter]
    fn oldest(&self) -> Option<u64> {
        self.runs.first().map(|run| run.first)
    }

    fn acknowledge(&mut self, py: Python<'_>, ranges: Vec<Span>) -> Option<Settled> {
        let taken = self.take(py, &ranges);
        let newest = taken.last()?;
        let (sent_time, delivered) = (newest.sent_time, newest.delivered);
        let (delivered_time, app_limited) = (newest.delivered_time, newest.app_limited);
        let (mut spans, mut pieces): (Vec<Span>, Vec<Piece>) = (Vec::new(), Vec::new());
        let (mut nbytes, mut largest) = (0, 0);
        for run in taken {
            nbytes += run.wire_bytes();
            largest = largest.max(run.largest());
            match spans.last_mut() {
                Some(span) if span.1 == run.first => span.1 = run.stop,
                _ => spans.push((run.first, run.stop)),
            }
            match pieces.last_mut() {
                // Nothing joins the end of a stream.
                Some((stream, _, end, fin))
                    if !*fin && *end == run.start && stream.is(&run.stream) =>
                {
                    (*end, *fin) = (run.end, run.fin);
                }
                _ => pieces.push((run.stream, run.start, run.end, run.fin)),
            }
        }
        Some((spans, pieces, nbytes, largest, sent_time, delivered, delivered_time, app_limited))
    }

    fn lose(
        &mut self,
        py: Python<'_>,
        largest_acked: i64,
        threshold: i64,
        delay: f64,
        now: f64,
    ) -> (Option<f64>, Vec<Lost>) {
        let mut late: Vec<Span> = Vec::new();
        let mut next_time: Option<f64> = None;
        for run in &self.runs {
            if run.first as i64 > largest_acked {
                break;
            }
            // Compare the same sum as the timer: a difference may round the other way for ever.
            let due = run.sent_time + delay;
            if due <= now {
                late.push((run.first, run.stop.min(largest_acked as u64 + 1)));
                continue;
            }
            if run.first as i64 <= threshold {
                late.push((run.first, run.stop.min(threshold as u64 + 1)));
            }
            if run.stop as i64 - 1 > threshold && next_time.is_none_or(|time| due < time) {
                next_time = Some(due);
            }
        }
        let lost = self.take(py, &late);
        let lost = lost.into_iter().map(|run| {
            let piece = (!run.resent).then(|| run.piece(py));
            (run.first, run.stop, run.sent_time, run.wire_bytes(), run.largest(), piece)
        });
        (next_time, lost.collect())
    }

    fn oldest_unrepeated(&self) -> Option<u64> {
        self.unrepeated().map(|index| self.runs[index].first)
    }

    fn repeat_oldest(&mut self, py: Python<'_>) -> PyResult<Piece> {
        let index = self.unrepeated().ok_or_else(|| PyValueError::new_err("nothing to repeat"))?;
        let run = &mut self.runs[index];
        let rest = (run.stop - run.first > 1).then(|| run.split(py, run.first + 1));
        run.resent = true;
        let piece = run.piece(py);
        if let Some(rest) = rest {
            self.runs.insert(index + 1, rest);
        }
        Ok(piece)
    }

    fn clear(&mut self) -> u64 {
        std::mem::take(&mut self.runs).iter().map(Run::wire_bytes).sum()
    }
}
