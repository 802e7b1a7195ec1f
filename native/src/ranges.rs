//! Sets of integers kept as ranges: stream offsets, packet numbers.

/// Integers from the first up to the second, which is exclusive.
pub type Span = (u64, u64);

/// Disjoint, non-adjacent ranges in ascending order, the end exclusive.
#[derive(Default)]
pub struct Ranges(Vec<Span>);

impl Ranges {
    pub fn first(&self) -> Option<Span> {
        self.0.first().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Adds a range, which may touch or overlap what is there.
    pub fn add(&mut self, mut start: u64, mut stop: u64) {
        if stop <= start {
            return;
        }
        let first = self.0.partition_point(|range| range.1 < start);
        let last = self.0.partition_point(|range| range.0 <= stop);
        if let Some(joined) = self.0.get(first..last).filter(|joined| !joined.is_empty()) {
            start = start.min(joined[0].0);
            stop = stop.max(joined[joined.len() - 1].1);
        }
        self.0.splice(first..last, [(start, stop)]);
    }

    /// Takes a range out.
    pub fn subtract(&mut self, start: u64, stop: u64) {
        let first = self.0.partition_point(|range| range.1 <= start);
        let last = self.0.partition_point(|range| range.0 < stop);
        if first >= last || stop <= start {
            return;
        }
        let before = (self.0[first].0, start);
        let after = (stop, self.0[last - 1].1);
        let kept = [before, after].into_iter().filter(|range| range.0 < range.1);
        self.0.splice(first..last, kept);
    }

    pub fn pop_first(&mut self) -> Option<Span> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// The ranges that overlap `start..stop`.
    pub fn overlapping(&self, start: u64, stop: u64) -> &[Span] {
        let first = self.0.partition_point(|range| range.1 <= start);
        let last = self.0.partition_point(|range| range.0 < stop);
        self.0.get(first..last).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_split() {
        let mut ranges = Ranges::default();
        ranges.add(10, 20);
        ranges.add(30, 40);
        ranges.add(20, 25);
        assert_eq!(ranges.0, [(10, 25), (30, 40)]);
        ranges.add(24, 31);
        assert_eq!(ranges.0, [(10, 40)]);
        ranges.subtract(15, 20);
        assert_eq!(ranges.0, [(10, 15), (20, 40)]);
        assert_eq!(ranges.overlapping(14, 20), [(10, 15)]);
        ranges.subtract(0, 100);
        assert!(ranges.is_empty());
        ranges.add(5, 5);
        assert!(ranges.is_empty());
    }
}
