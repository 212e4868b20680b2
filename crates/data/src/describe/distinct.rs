//! How many different values a column has, in a few kilobytes.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

/// Most values that are counted exactly.
const EXACT: usize = 2048;
/// Bits of a hash that choose a register: 2^14 of them, a standard error of .8 %.
const REGISTER_BITS: u32 = 14;

/// A number of different values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Distinct {
    /// How many.
    pub count: u64,
    /// Whether that is so, or an estimate.
    pub exact: bool,
}

/// Counts different values: exactly up to 2,048, then by HyperLogLog.
///
/// P. Flajolet, É. Fusy, O. Gandouet, F. Meunier, *HyperLogLog: the analysis of a near-optimal cardinality estimation
/// algorithm*, AofA 2007. Hashes have 64 bits, so that its correction for large counts is not needed.
#[derive(Clone, Debug)]
pub(super) enum Counter {
    Exact(HashSet<u64, BuildHasherDefault<Unhashed>>),
    Registers(Box<[u8]>),
}

impl Default for Counter {
    fn default() -> Self {
        Counter::Exact(HashSet::default())
    }
}

impl Counter {
    pub(super) fn add(&mut self, value: &str) {
        let hash = xxh3_64(value.as_bytes());
        match self {
            Counter::Registers(registers) => enter(registers, hash),
            Counter::Exact(seen) => {
                seen.insert(hash);
                if seen.len() > EXACT {
                    let mut registers = vec![0; 1 << REGISTER_BITS].into_boxed_slice();
                    seen.iter().for_each(|&hash| enter(&mut registers, hash));
                    *self = Counter::Registers(registers);
                }
            }
        }
    }

    pub(super) fn distinct(&self) -> Distinct {
        match self {
            Counter::Exact(seen) => Distinct { count: seen.len() as u64, exact: true },
            Counter::Registers(registers) => {
                Distinct { count: estimate(registers).round() as u64, exact: false }
            }
        }
    }
}

/// A register holds the largest number of leading zeros of the hashes that chose it, plus one.
fn enter(registers: &mut [u8], hash: u64) {
    let register = &mut registers[(hash >> (64 - REGISTER_BITS)) as usize];
    let rank = (hash << REGISTER_BITS).leading_zeros().min(64 - REGISTER_BITS) + 1;
    *register = (*register).max(rank as u8);
}

fn estimate(registers: &[u8]) -> f64 {
    let m = registers.len() as f64;
    let harmonic: f64 = registers.iter().map(|&rank| (-f64::from(rank)).exp2()).sum();
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / harmonic;
    let empty = registers.iter().filter(|&&rank| rank == 0).count();
    // Linear counting, while it is the better of the two.
    if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw }
}

/// Hands a hash through.
#[derive(Clone, Default)]
pub(super) struct Unhashed(u64);

impl Hasher for Unhashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: u64) -> Distinct {
        let mut counter = Counter::default();
        (0..values).for_each(|value| counter.add(&value.to_string()));
        (0..values.min(500)).for_each(|value| counter.add(&value.to_string()));
        counter.distinct()
    }

    #[test]
    fn few_values_are_counted_and_many_estimated() {
        assert_eq!(of(0), Distinct { count: 0, exact: true });
        assert_eq!(of(2048), Distinct { count: 2048, exact: true });
        for values in [2049, 10_000, 60_000, 1_000_000] {
            let found = of(values);
            let error = (found.count as f64 / values as f64 - 1.0).abs();
            assert!(!found.exact && error < 0.03, "{values}: {found:?}");
        }
    }
}
