//! Sorting of look-ups by id.

/// Bits of the widest digit: its 2048 counters fit the first-level cache beside the data.
const DIGIT: u32 = 11;
/// Digits that a 32-bit id can take.
const PASSES: usize = 3;

/// Sorts `keys` by their upper 32 bits, the id, keeping the order of equal ids: a radix sort from the lowest digit.
///
/// A key is `id << 32 | position`. Only the bits of `max_id`, the largest id that may occur, are looked at, in as few
/// passes as they need. The first `keys.len()` values of `spare` are scratch.
///
/// # Panics
/// When `spare` is shorter than `keys`, or there are 2^32 keys or more.
pub fn sort_lookups(keys: &mut [u64], spare: &mut [u64], max_id: u32) {
    let count = keys.len();
    assert!(spare.len() >= count, "sort_lookups: {count} keys, {} spare", spare.len());
    assert!(u32::try_from(count).is_ok(), "sort_lookups: too many keys");
    debug_assert!(
        keys.iter().all(|key| (key >> 32) as u32 <= max_id),
        "sort_lookups: an id is above {max_id}"
    );
    let bits = u32::BITS - max_id.leading_zeros();
    let passes = bits.div_ceil(DIGIT) as usize;
    if passes == 0 || count < 2 {
        return;
    }
    // Digits of equal width: fewer counters than full ones and a rest.
    let width = bits.div_ceil(passes as u32);
    let mut counters = [[0u32; 1 << DIGIT]; PASSES];
    for &key in keys.iter() {
        for (pass, counters) in counters.iter_mut().enumerate().take(passes) {
            counters[digit(key, pass, width)] += 1;
        }
    }
    let spare = &mut spare[..count];
    let mut moved = false;
    for (pass, counters) in counters.iter_mut().enumerate().take(passes) {
        let (from, to) = if moved { (&*spare, &mut *keys) } else { (&*keys, &mut *spare) };
        if counters[digit(from[0], pass, width)] as usize == count {
            continue;
        }
        scatter(from, to, counters, |key| digit(key, pass, width));
        moved = !moved;
    }
    if moved {
        keys.copy_from_slice(spare);
    }
}

/// Digit `pass` of the key's id.
#[inline(always)]
fn digit(key: u64, pass: usize, width: u32) -> usize {
    (key >> (32 + pass as u32 * width)) as usize & ((1 << width) - 1)
}

/// Moves the keys to the order of their digit; `counters` says how often each occurs.
#[inline(always)]
fn scatter(from: &[u64], to: &mut [u64], counters: &mut [u32; 1 << DIGIT], digit: impl Fn(u64) -> usize) {
    let mut start = 0;
    for counter in counters.iter_mut() {
        start += std::mem::replace(counter, start);
    }
    for &key in from {
        let next = &mut counters[digit(key)];
        to[*next as usize] = key;
        *next += 1;
    }
}

/// The first index from `near` on at which a new id begins: where sorted `keys` may be cut for several threads.
///
/// # Panics
/// When `near > keys.len()`.
pub fn run_start(keys: &[u64], near: usize) -> usize {
    assert!(near <= keys.len(), "run_start: {near} of {} keys", keys.len());
    if near == 0 || near == keys.len() {
        return near;
    }
    let before = keys[near - 1] >> 32;
    near + keys[near..].partition_point(|key| key >> 32 == before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(ids: &[u32], max_id: u32) -> Vec<u64> {
        let mut keys: Vec<u64> =
            ids.iter().enumerate().map(|(i, &id)| (u64::from(id) << 32) | i as u64).collect();
        let mut spare = vec![0; keys.len() + 1];
        sort_lookups(&mut keys, &mut spare, max_id);
        keys
    }

    proptest! {
        #[test]
        fn sorts_by_id_and_keeps_positions_in_order(
            bits in 0u32..33, shift in 0u32..33, raw in prop::collection::vec(any::<u32>(), 0..300),
        ) {
            // Few or many distinct ids, with digits that are equal throughout.
            let mask = ((1u64 << bits) - 1) as u32;
            let ids: Vec<u32> = raw.iter().map(|id| ((u64::from(id & mask)) << shift) as u32).collect();
            let mut expected: Vec<u64> = (0u64..).zip(&ids).map(|(i, &id)| (u64::from(id) << 32) | i).collect();
            expected.sort_by_key(|key| key >> 32);
            for max_id in [ids.iter().copied().max().unwrap_or(0), u32::MAX] {
                prop_assert_eq!(&sorted(&ids, max_id), &expected);
            }
        }

        #[test]
        fn runs_are_never_cut(ids in prop::collection::vec(0u32..6, 0..60), near in 0usize..60) {
            let keys = sorted(&ids, 6);
            let near = near.min(keys.len());
            let cut = run_start(&keys, near);
            prop_assert!(cut >= near);
            prop_assert!(cut == 0 || cut == keys.len() || keys[cut - 1] >> 32 != keys[cut] >> 32);
            prop_assert!(cut == near || keys[near..cut].iter().all(|key| key >> 32 == keys[near - 1] >> 32));
        }
    }
}
