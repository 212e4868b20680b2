//! The scratch memory of a step: where pairs, counts and sums lie.

use super::sort::{Pairs, sort_scratch};
use super::update::TILE;

/// Addresses of what lies in scratch memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scratch {
    /// First look-up of each source.
    pub(super) starts: u64,
    /// The number of look-ups.
    pub(super) count: u64,
    /// The look-ups, and room for as many.
    pub(super) pairs: Pairs,
    pub(super) spare: Pairs,
    /// What sorting needs.
    pub(super) sort: u64,
    /// Runs before each tile.
    pub(super) runs: u64,
    /// Whether a long run begins in a tile.
    pub(super) long_runs: u64,
    /// Sums of parts of long runs.
    pub(super) parts: u64,
    /// Behind everything.
    pub(super) end: u64,
}

impl Scratch {
    /// From `address` on, for `lookups` look-ups by `sources` sources, and sums of `width` values.
    pub(super) fn new(address: u64, sources: u32, lookups: u32, width: u32) -> Scratch {
        let mut end = address;
        let mut take = |bytes: u64| {
            let at = end;
            end += bytes.next_multiple_of(256);
            at
        };
        let tiles = u64::from(lookups.div_ceil(TILE));
        let starts = take(4 * (u64::from(sources) + 1));
        let count = starts + 4 * u64::from(sources);
        let [keys, positions, spare_keys, spare_positions] = [4 * u64::from(lookups); 4].map(&mut take);
        let sort = take(sort_scratch(lookups));
        let [runs, long_runs] = [4 * tiles; 2].map(&mut take);
        let parts = take(2 * tiles * 4 * u64::from(width));
        let (pairs, spare) =
            (Pairs { keys, positions }, Pairs { keys: spare_keys, positions: spare_positions });
        Scratch { starts, count, pairs, spare, sort, runs, long_runs, parts, end }
    }
}
