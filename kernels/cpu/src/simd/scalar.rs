//! One value at a time: the reference.

use super::Simd;
use crate::isa::Isa;

/// Plain Rust, one lane.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Simd for Scalar {
    type V = f32;
    type M = bool;
    const LANES: usize = 1;
    const ISA: Isa = Isa::Scalar;

    fn splat(self, x: f32) -> f32 {
        x
    }
    unsafe fn load_ptr(self, from: *const f32) -> f32 {
        // SAFETY: the caller's contract.
        unsafe { *from }
    }
    unsafe fn store_ptr(self, to: *mut f32, v: f32) {
        // SAFETY: the caller's contract.
        unsafe { *to = v }
    }
    unsafe fn load_part_ptr(self, from: *const f32, count: usize) -> f32 {
        // SAFETY: the caller's contract.
        if count == 0 { 0.0 } else { unsafe { *from } }
    }
    unsafe fn store_part_ptr(self, to: *mut f32, v: f32, count: usize) {
        if count > 0 {
            // SAFETY: the caller's contract.
            unsafe { *to = v }
        }
    }
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    fn sqrt(self, a: f32) -> f32 {
        a.sqrt()
    }
    fn abs(self, a: f32) -> f32 {
        a.abs()
    }
    fn round(self, a: f32) -> f32 {
        a.round_ties_even()
    }
    fn scale_by_power_of_two(self, a: f32, n: f32) -> f32 {
        a * f32::from_bits(((n as i32 + 127) as u32) << 23)
    }
    fn greater(self, a: f32, b: f32) -> bool {
        a > b
    }
    fn select(self, mask: bool, a: f32, b: f32) -> f32 {
        if mask { a } else { b }
    }
    fn sum(self, a: f32) -> f32 {
        a
    }
}
