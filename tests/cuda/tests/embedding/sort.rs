//! The sort of look-ups: a stable one.

use crate::Numbers;
use manygate_cuda::embedding::{Pairs, sort_lookups, sort_scratch};
use manygate_cuda_tests::Gpu;
use proptest::prelude::*;

/// Sorts `keys` of room for `most`, with their indices as positions.
fn sorted(keys: &[u32], most: usize, max_key: u32, seed: u64) -> Vec<(u32, u32)> {
    let mut gpu = Gpu::new();
    gpu.seed = seed;
    let mut with_room = keys.to_vec();
    with_room.resize(most, 0xdead_beef);
    let keys_at = gpu.upload(&with_room);
    let positions = gpu.upload(&(0..most as u32).collect::<Vec<_>>());
    let spare = Pairs { keys: gpu.allocate::<u32>(most), positions: gpu.allocate::<u32>(most) };
    let count = gpu.upload(&[keys.len() as u32]);
    let scratch = gpu.allocate::<u8>(sort_scratch(most as u32) as usize);
    let pairs = Pairs { keys: keys_at, positions };
    let (launches, sorted) = sort_lookups(pairs, spare, count, most as u32, max_key, scratch);
    launches.iter().for_each(|launch| gpu.launch(launch));
    let keys_out: Vec<u32> = gpu.download(sorted.keys, keys.len());
    keys_out.into_iter().zip(gpu.download(sorted.positions, keys.len())).collect()
}

fn expected(keys: &[u32]) -> Vec<(u32, u32)> {
    let mut pairs: Vec<(u32, u32)> = keys.iter().copied().zip(0..).collect();
    pairs.sort_by_key(|pair| pair.0);
    pairs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn pairs_are_sorted_and_equal_ones_keep_their_order(
        bits in 0u32..33, shift in 0u32..33, count in 0usize..500, dead in 0usize..9, seed: u64,
    ) {
        let mask = ((1u64 << bits) - 1) as u32;
        let mut numbers = Numbers(seed);
        let keys: Vec<u32> = (0..count).map(|_| (u64::from(numbers.next() as u32 & mask) << shift) as u32).collect();
        let largest = keys.iter().copied().max().unwrap_or(0);
        prop_assert_eq!(sorted(&keys, count + dead, largest, 0), expected(&keys));
    }
}

/// More than two tiles, a few live pairs in the last, and a tile that is not there at all.
#[test]
fn tiles_are_put_together() {
    let mut numbers = Numbers(3);
    let keys = numbers.ids(8195, 1 << 18);
    for seed in [0, 7] {
        assert_eq!(sorted(&keys, 3 * 4096 + 1, (1 << 18) - 1, seed), expected(&keys));
    }
}

/// The largest key is what the end of a tile is filled up with.
#[test]
fn the_largest_keys_are_not_mixed_up_with_what_is_not_there() {
    let keys = [u32::MAX, 0, u32::MAX, 5, u32::MAX];
    assert_eq!(sorted(&keys, 9, u32::MAX, 0), expected(&keys));
    let equal = [u32::MAX; 700];
    assert_eq!(sorted(&equal, 700, u32::MAX, 0), expected(&equal));
}
