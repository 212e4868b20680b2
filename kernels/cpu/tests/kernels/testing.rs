//! What the tests of several kernel families share.

/// `len` repeatable values in `-scale ..= scale`, with a few exact zeros.
pub(crate) fn values(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..len).map(|i| if i % 29 == 28 { 0.0 } else { (2.0 * next() - 1.0) * scale }).collect()
}

/// Whether `got` is `expected` to within `tolerance`, relative to `expected` or to 1, whichever is larger.
pub(crate) fn close(got: f32, expected: f64, tolerance: f64) -> bool {
    (f64::from(got) - expected).abs() <= tolerance * expected.abs().max(1.0)
}

/// The values in double precision.
pub(crate) fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}
