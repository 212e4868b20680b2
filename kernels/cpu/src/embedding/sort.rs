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
