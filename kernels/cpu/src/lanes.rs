//! Reading and writing slices a vector at a time, the last one in part.
//!
//! Kernels walk rows with `chunks(S::LANES)`; these two take such a chunk, whole or not, so that a body is written
//! once and its end of row is not a second copy of it. (Closures would not do: one that is not inlined is compiled
//! without the instruction set.)

use crate::simd::Simd;

/// The widest vector of any instruction set, for buffers on the stack.
pub(crate) const MAX_LANES: usize = 16;

/// Reads the first `LANES` values of `from`, or all of them where there are fewer; the other lanes are 0.
#[inline(always)]
pub(crate) fn load_chunk<S: Simd>(s: S, from: &[f32]) -> S::V {
    if from.len() >= S::LANES { s.load(from) } else { s.load_part(from) }
}

/// Writes the first `LANES` values of `to`, or all of them where there are fewer.
#[inline(always)]
pub(crate) fn store_chunk<S: Simd>(s: S, to: &mut [f32], v: S::V) {
    if to.len() >= S::LANES { s.store(to, v) } else { s.store_part(to, v) }
}
