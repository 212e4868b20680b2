//! A stable radix sort of pairs of u32.

use super::THREADS;
use crate::launch::{Arguments, Launch};
use crate::module::EMBEDDING_SORT;

/// Pairs that a block sorts.
const TILE: u32 = 4096;
/// Bits of the widest digit.
const DIGIT: u32 = 8;

/// Keys and positions of look-ups, each an array of u32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Address of the keys.
    pub keys: u64,
    /// Address of the positions.
    pub positions: u64,
}

impl Pairs {
    fn to_bytes(self) -> Vec<u8> {
        Arguments::new().with_u64(self.keys).with_u64(self.positions).bytes().to_vec()
    }
}

/// Bytes of scratch that [`sort_lookups`] needs for `most` pairs: the counts of digits of every tile, and of all.
pub fn sort_scratch(most: u32) -> u64 {
    4 * (1 << DIGIT) * (u64::from(most.div_ceil(TILE)) + 1)
}

/// Sorts `pairs` by their keys, keeping the order of equal ones: a radix sort from the lowest digit. Returns the launches
/// and which of `pairs` and `spare` is sorted then.
///
/// `count` is the address of the number of pairs, at most `most`, for which `spare` has room too. Only the bits of
/// `max_key`, the largest key that may occur, are looked at, in as few passes as they need. `scratch` is the address of
/// [`sort_scratch`] bytes.
pub fn sort_lookups(
    pairs: Pairs,
    spare: Pairs,
    count: u64,
    most: u32,
    max_key: u32,
    scratch: u64,
) -> (Vec<Launch>, Pairs) {
    let bits = u32::BITS - max_key.leading_zeros();
    let passes = bits.div_ceil(DIGIT);
    let tiles = most.div_ceil(TILE);
    let totals = scratch + 4 * (1 << DIGIT) * u64::from(tiles);
    let mut launches = Vec::new();
    let (mut from, mut to) = (pairs, spare);
    for pass in 0..passes {
        // Digits of equal width: longer stretches of a tile with the same digit than with full ones and a rest.
        let width = bits.div_ceil(passes);
        let digit = Arguments::new().with_u32(pass * width).with_u32(width).bytes().to_vec();
        let launch = |kernel, blocks, threads, arguments| {
            Launch::new(&EMBEDDING_SORT, kernel, blocks, threads, arguments)
        };
        let counted =
            Arguments::new().with_u64(from.keys).with_u64(count).with_bytes(&digit, 4).with_u64(scratch);
        launches.push(launch("count_digits", tiles, THREADS, counted));
        let scanned = Arguments::new().with_u64(count).with_u32(tiles).with_u64(scratch).with_u64(totals);
        let scanners = tiles.next_multiple_of(32).min(1024);
        launches.push(launch("scan_digits", if tiles == 0 { 0 } else { 1 << width }, scanners, scanned));
        let moved = Arguments::new().with_bytes(&from.to_bytes(), 8).with_u64(count).with_bytes(&digit, 4);
        let moved = moved.with_u64(scratch).with_u64(totals).with_bytes(&to.to_bytes(), 8);
        launches.push(launch("scatter", tiles, THREADS, moved));
        (from, to) = (to, from);
    }
    (launches, from)
}
