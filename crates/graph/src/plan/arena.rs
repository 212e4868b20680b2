//! Offsets in the tile arena, where values that are not alive together share memory.

use manygate_core::{Error, Result};

/// A block of the arena, alive from one step of a phase to another, both included.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) phase: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// f32 values.
    pub(crate) len: usize,
    /// Where it lies; found by [`assign`].
    pub(crate) offset: usize,
}

impl Interval {
    fn alive_with(&self, other: &Interval) -> bool {
        self.phase == other.phase && self.from <= other.to && other.from <= self.to
    }

    fn shares_memory_with(&self, other: &Interval) -> bool {
        self.offset < other.offset + other.len && other.offset < self.offset + self.len
    }
}

/// Gives each interval an offset, first fit over the times in which it is alive; returns the arena's length.
pub(crate) fn assign(intervals: &mut [Interval]) -> usize {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| {
        let interval = &intervals[i];
        (interval.phase, interval.from, std::cmp::Reverse(interval.len))
    });
    let mut alive: Vec<usize> = Vec::new();
    let mut end = 0;
    for i in order {
        alive.retain(|&a| intervals[a].alive_with(&intervals[i]));
        alive.sort_unstable_by_key(|&a| intervals[a].offset);
        let mut offset = 0;
        for other in alive.iter().map(|&a| &intervals[a]) {
            if other.offset >= offset + intervals[i].len {
                break;
            }
            offset = offset.max(other.offset + other.len);
        }
        intervals[i].offset = offset;
        alive.push(i);
        end = end.max(offset + intervals[i].len);
    }
    end
}

/// Checks that no two intervals that are alive together share memory: running a plan relies on it, so it is checked for
/// every plan, apart from how the offsets were found.
pub(crate) fn verify(intervals: &[Interval]) -> Result<()> {
    for (i, a) in intervals.iter().enumerate() {
        if let Some(b) = intervals[..i].iter().find(|b| a.alive_with(b) && a.shares_memory_with(b)) {
            return Err(Error::graph(
                "plan",
                format!("{a:?} and {b:?} share memory; this is a fault of the engine"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(phase: usize, from: usize, to: usize, len: usize) -> Interval {
        Interval { phase, from, to, len, offset: 0 }
    }

    proptest! {
        #[test]
        fn what_is_alive_together_is_apart(
            spans in prop::collection::vec((0usize..3, 0usize..20, 0usize..8, 0usize..50), 0..40)
        ) {
            let mut all: Vec<Interval> = spans.iter().map(|&(p, from, for_, len)| interval(p, from, from + for_, len)).collect();
            let end = assign(&mut all);
            prop_assert!(verify(&all).is_ok());
            prop_assert!(all.iter().all(|i| i.offset + i.len <= end));
            prop_assert!(end <= all.iter().map(|i| i.len).sum());
        }
    }

    #[test]
    fn memory_is_used_again() {
        let mut all =
            [interval(0, 0, 1, 16), interval(0, 1, 2, 32), interval(0, 2, 3, 16), interval(1, 0, 9, 48)];
        assert_eq!(assign(&mut all), 48);
        assert_eq!(all.map(|i| i.offset), [0, 16, 0, 0]);
    }

    #[test]
    fn a_clash_is_found() {
        let clash = [interval(0, 0, 2, 16), interval(0, 2, 3, 16)];
        assert!(verify(&clash).unwrap_err().to_string().contains("share memory"));
    }
}
