//! Counter-based random numbers: Philox 4x32-10.
//!
//! J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011.
//! A number is a pure function of (seed, step, op) and a counter (row, column), so it does not depend on tiles,
//! lanes, threads, the order of rows, or the device.

use manygate_kernels::random::philox;

/// A family of random numbers, addressed by a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// The stream of one purpose (`op`, a stable hash of its name) at one step of a run.
    pub fn new(seed: u64, step: u64, op: u64) -> Self {
        let key = mix(mix(mix(seed) ^ step) ^ op);
        Stream { key: [key as u32, (key >> 32) as u32] }
    }

    /// The key of its [blocks](Stream::block), for kernels that draw many at once.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// Four independent 32-bit numbers at `(row, column)`.
    pub fn block(&self, row: u64, column: u64) -> [u32; 4] {
        let counter = [row as u32, (row >> 32) as u32, column as u32, (column >> 32) as u32];
        philox(counter, self.key)
    }

    /// A number in [0, 1) at `(row, column)`, with 24 random bits.
    pub fn uniform(&self, row: u64, column: u64) -> f32 {
        to_unit(self.block(row, column)[0])
    }

    /// A standard normal number at `(row, column)` (Box and Muller's transform in f64).
    pub fn normal(&self, row: u64, column: u64) -> f32 {
        let [a, b, ..] = self.block(row, column);
        let radius = (-2.0 * ((f64::from(a) + 1.0) / 4_294_967_296.0).ln()).sqrt();
        let angle = 2.0 * std::f64::consts::PI * f64::from(b) / 4_294_967_296.0;
        (radius * angle.cos()) as f32
    }

    /// A number in `0 .. below` at `(row, column)`.
    ///
    /// # Panics
    /// When `below` is 0.
    pub fn below(&self, row: u64, column: u64, below: u64) -> u64 {
        assert!(below > 0, "a random number below 0");
        let [a, b, ..] = self.block(row, column);
        let bits = u64::from(a) | u64::from(b) << 32;
        ((u128::from(bits) * u128::from(below)) >> 64) as u64
    }

    /// Shuffles `items` (Fisher and Yates), a pure function of the stream.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64, 0, last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

fn to_unit(bits: u32) -> f32 {
    (bits >> 8) as f32 / 16_777_216.0
}

/// The finaliser of SplitMix64: every input bit reaches every output bit.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "statistics of many numbers")]
    fn numbers_have_the_moments_of_their_distribution() {
        let stream = Stream::new(1, 2, 3);
        let n = 40_000;
        let (mut mean, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for i in 0..n {
            let z = f64::from(stream.normal(i, 0));
            mean += z / n as f64;
            square += z * z / n as f64;
            uniform += f64::from(stream.uniform(i, 1)) / n as f64;
        }
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.03 && (uniform - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_depends_on_the_seed() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..100).collect();
            Stream::new(seed, 0, 0).shuffle(&mut items);
            items
        };
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..100));
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
    }
}
