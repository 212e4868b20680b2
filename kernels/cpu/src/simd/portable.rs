//! Four values at a time on whatever the target is compiled for, through the crate `wide`: SSE2 on plain x86-64, NEON on
//! 64-bit ARM, SIMD of WebAssembly, arrays elsewhere.

use super::Simd;
use crate::isa::Isa;
use wide::{f32x4, i32x4};

/// Vectors of the crate `wide`.
///
/// Which instructions they become is settled when the program is compiled, so the same program has the same bits on
/// every machine that runs it. `mul_add` is fused where the target has the instruction ([`Isa::is_fused`]), and rounds the
/// product first elsewhere: a fused one would be a call of `fmaf` for each lane there, 0.9 GFLOP/s instead of 50.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Simd for Portable {
    type V = f32x4;
    type M = f32x4;
    const LANES: usize = 4;
    const ISA: Isa = Isa::Portable;

    #[inline(always)]
    fn splat(self, x: f32) -> f32x4 {
        f32x4::splat(x)
    }
    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> f32x4 {
        // SAFETY: the caller's contract; the alignment is that of one value.
        f32x4::new(unsafe { from.cast::<[f32; 4]>().read() })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut f32, v: f32x4) {
        // SAFETY: the caller's contract; the alignment is that of one value.
        unsafe { to.cast::<[f32; 4]>().write(v.to_array()) }
    }
    #[inline(always)]
    unsafe fn load_part_ptr(self, from: *const f32, count: usize) -> f32x4 {
        let mut values = [0.0; 4];
        // SAFETY: `from` is valid for `count` values by the caller's contract, `values` has four.
        unsafe { copy_part(from, values.as_mut_ptr(), count) };
        f32x4::new(values)
    }
    #[inline(always)]
    unsafe fn store_part_ptr(self, to: *mut f32, v: f32x4, count: usize) {
        // SAFETY: `to` is valid for `count` values by the caller's contract, the array has four.
        unsafe { copy_part(v.to_array().as_ptr(), to, count) }
    }
    #[inline(always)]
    fn add(self, a: f32x4, b: f32x4) -> f32x4 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32x4, b: f32x4) -> f32x4 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32x4, b: f32x4) -> f32x4 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32x4, b: f32x4) -> f32x4 {
        a / b
    }
    #[inline(always)]
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        a.mul_add(b, c)
    }
    // Of a NaN, `max` and `min` of `wide` make something else on every target.
    #[inline(always)]
    fn max(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_gt(b).select(a, b)
    }
    #[inline(always)]
    fn min(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_lt(b).select(a, b)
    }
    #[inline(always)]
    fn sqrt(self, a: f32x4) -> f32x4 {
        a.sqrt()
    }
    #[inline(always)]
    fn abs(self, a: f32x4) -> f32x4 {
        a.abs()
    }
    #[inline(always)]
    fn round(self, a: f32x4) -> f32x4 {
        a.round_ties_even()
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: f32x4, n: f32x4) -> f32x4 {
        let exponent = n.fast_round_int() + i32x4::splat(127);
        a * f32x4::from_bits((exponent << 23_u32).cast_unsigned())
    }
    #[inline(always)]
    fn greater(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_gt(b)
    }
    #[inline(always)]
    fn select(self, mask: f32x4, a: f32x4, b: f32x4) -> f32x4 {
        mask.select(a, b)
    }
    #[inline(always)]
    fn sum(self, a: f32x4) -> f32 {
        // The order of the sum in `wide` depends on the target; this one does not.
        let [a, b, c, d] = a.to_array();
        (a + c) + (b + d)
    }
}

/// Copies `count <= 4` values in pieces of fixed size; a copy of any length would be a call of `memcpy`.
///
/// # Safety
/// `from` and `to` are valid for reads and writes of `count` values and do not overlap.
#[inline(always)]
unsafe fn copy_part(from: *const f32, to: *mut f32, count: usize) {
    debug_assert!(count <= 4);
    macro_rules! piece {
        ($len:literal at $first:expr) => {
            if count & $len != 0 {
                // SAFETY: the pieces that `count` is the sum of lie one after the other inside `count` values.
                unsafe {
                    to.add($first).cast::<[f32; $len]>().write(from.add($first).cast::<[f32; $len]>().read());
                }
            }
        };
    }
    piece!(4 at 0);
    piece!(2 at 0);
    piece!(1 at count & 2);
}
