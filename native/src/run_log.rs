//! Runs of packets in flight: a few numbers per run, settled by ranges of packet numbers.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

/// Packet numbers, the end exclusive.
type Span = (u64, u64);

/// Bytes of a stream that packets carried: stream, start, end, whether they include its end.
type Piece = (Py<PyAny>, u64, u64, bool);

/// What was acknowledged; see `Settled` of `quicedge.quic.connection.sent_packets`.
type Settled = (Vec<Span>, Vec<Piece>, u64, u64, f64, u64, f64, bool);

/// What was lost; see `Lost` there.
type Lost = (u64, u64, f64, u64, u64, Option<Piece>);

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
        if first >= stop || self.runs.last().is_some_and(|run| run.stop > first) {
            return Err(PyValueError::new_err("packet numbers not in order"));
        }
        self.runs.push(Run {
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
        });
        Ok(())
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
