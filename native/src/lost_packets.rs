//! Packets declared lost, remembered for a while to detect spurious losses by late ACKs.

use pyo3::prelude::*;

use crate::ranges::Span;

/// Runs of packets remembered (`quicedge.config.limits.MAX_LOST_REMEMBERED`).
const REMEMBERED: usize = 32;

/// The newest runs of lost packets (`quicedge.quic.losses`).
#[pyclass(module = "quicedge._native")]
#[derive(Default)]
pub struct LostPackets {
    runs: Vec<Span>,
}

#[pymethods]
impl LostPackets {
    #[new]
    fn new() -> Self {
        LostPackets::default()
    }

    fn __bool__(&self) -> bool {
        !self.runs.is_empty()
    }

    fn add(&mut self, first: u64, stop: u64) {
        match self.runs.last_mut() {
            Some(last) if last.1 == first => last.1 = stop,
            _ => {
                self.runs.push((first, stop));
                if self.runs.len() > REMEMBERED {
                    self.runs.remove(0);
                }
            }
        }
    }

    fn acknowledged(&mut self, ranges: Vec<Span>) -> u64 {
        let touched = |run: &Span| {
            let at = ranges.partition_point(|range| range.1 <= run.0);
            ranges.get(at).is_some_and(|range| range.0 < run.1)
        };
        if !self.runs.iter().any(touched) {
            return 0;
        }
        let mut spurious = 0;
        let mut kept = Vec::new();
        for &(first, stop) in &self.runs {
            let mut from = first;
            let at = ranges.partition_point(|range| range.1 <= first);
            for range in ranges[at..].iter().take_while(|range| range.0 < stop) {
                let (start, end) = (range.0.max(from), range.1.min(stop));
                spurious += end - start;
                if from < start {
                    kept.push((from, start));
                }
                from = end;
            }
            if from < stop {
                kept.push((from, stop));
            }
        }
        self.runs = kept.split_off(kept.len().saturating_sub(REMEMBERED));
        spurious
    }
}
