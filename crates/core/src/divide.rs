//! Divides slices among the pieces of an executor's work.

use crate::executor::Executor;
use std::ops::Range;

/// A pointer that pieces divide among themselves.
struct Shared(*mut f32);
// SAFETY: each piece reaches its own range alone, see `run_parts`.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// `range` is in bounds of the slice behind the pointer and belongs to the caller alone.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, range: &Range<usize>) -> &mut [f32] {
        // SAFETY: the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// Calls `work(i, [part of each slice in ranges[i]])` for each range, on the executor's threads.
///
/// # Panics
/// When the ranges overlap, descend, or leave a slice.
pub fn run_parts<const N: usize>(
    exec: &dyn Executor,
    ranges: &[Range<usize>],
    slices: [&mut [f32]; N],
    work: impl Fn(usize, [&mut [f32]; N]) + Sync,
) {
    let rising = ranges.windows(2).all(|w| w[0].end <= w[1].start) && ranges.iter().all(|r| r.start <= r.end);
    assert!(rising, "ranges must rise and not overlap");
    let end = ranges.last().map_or(0, |r| r.end);
    assert!(slices.iter().all(|s| s.len() >= end), "ranges leave a slice");
    let shared = slices.map(|s| Shared(s.as_mut_ptr()));
    exec.run(ranges.len(), &|i, _| {
        // SAFETY: in bounds and disjoint by the checks above, and the executor runs each piece once; the slices are
        // borrowed exclusively until `run` has returned.
        work(i, std::array::from_fn(|n| unsafe { shared[n].part(&ranges[i]) }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{Pool, Serial};

    #[test]
    fn each_piece_gets_its_range_of_every_slice() {
        let ranges: Vec<Range<usize>> = (0..10).map(|i| i * 7..i * 7 + 5).collect();
        let (mut a, mut b) = (vec![0.0; 70], vec![1.0; 70]);
        Pool::new(3).unwrap().enter(|exec| {
            run_parts(exec, &ranges, [&mut a, &mut b], |i, [a, b]| {
                a.fill(i as f32);
                b.fill(0.0);
            });
        });
        assert_eq!((a[7], a[11], a[12], b[12], b[11]), (1.0, 1.0, 0.0, 1.0, 0.0));
    }

    #[test]
    #[should_panic(expected = "must rise")]
    fn overlapping_ranges_are_refused() {
        run_parts(&Serial, &[0..3, 2..4], [&mut [0.0; 9]], |_, _| ());
    }
}
