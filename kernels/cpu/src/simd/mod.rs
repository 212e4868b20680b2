//! One small vector trait, so that a kernel is written once and compiled for every instruction set.
//!
//! A kernel body is generic over [`Simd`] and `#[inline(always)]`; the [`dispatch!`](crate::dispatch) macro wraps it
//! in one `#[target_feature]` function an instruction set. A value of [`Avx2`] or [`Avx512`] is the proof that the
//! CPU has the instructions, so the methods are safe to call; [`Scalar`] and [`Portable`] need none.

mod portable;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use portable::Portable;
pub use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

use crate::isa::Isa;

/// Vector operations on `LANES` f32 values.
///
/// `mul_add` is fused on every set, also the scalar one, so that sets differ by the order of sums alone; the exception is
/// [`Portable`] where the target has no such instruction ([`Isa::is_fused`]).
pub trait Simd: Copy {
    /// A vector of [`LANES`](Simd::LANES) values.
    type V: Copy;
    /// A lane mask.
    type M: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// The instruction set this is.
    const ISA: Isa;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Reads `LANES` values.
    ///
    /// # Safety
    /// `from` is valid for reads of `LANES` values.
    unsafe fn load_ptr(self, from: *const f32) -> Self::V;
    /// Writes `LANES` values.
    ///
    /// # Safety
    /// `to` is valid for writes of `LANES` values.
    unsafe fn store_ptr(self, to: *mut f32, v: Self::V);
    /// Reads `count <= LANES` values, the other lanes are 0.
    ///
    /// # Safety
    /// `from` is valid for reads of `count` values.
    unsafe fn load_part_ptr(self, from: *const f32, count: usize) -> Self::V;
    /// Writes the first `count <= LANES` lanes.
    ///
    /// # Safety
    /// `to` is valid for writes of `count` values.
    unsafe fn store_part_ptr(self, to: *mut f32, v: Self::V, count: usize);

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where [`Isa::is_fused`], else after the product too.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of each pair; `b` where either is NaN (the rule of the x86 instruction).
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each pair; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Square roots.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// Absolute values.
    fn abs(self, a: Self::V) -> Self::V;
    /// Nearest integers, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for integral `n`, with `a` near 1 and `n` in -126 ..= 127.
    fn scale_by_power_of_two(self, a: Self::V, n: Self::V) -> Self::V;
    /// Lanes where `a > b` (false for NaN).
    fn greater(self, a: Self::V, b: Self::V) -> Self::M;
    /// `a` where the mask is set, else `b`.
    fn select(self, mask: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// Sum of the lanes, in a fixed order of this instruction set.
    fn sum(self, a: Self::V) -> f32;
    /// Sums of the lanes of four vectors, each in a fixed order of this instruction set, which need not be that of
    /// [`sum`](Simd::sum).
    #[inline(always)]
    fn sums(self, of: [Self::V; 4]) -> [f32; 4] {
        [self.sum(of[0]), self.sum(of[1]), self.sum(of[2]), self.sum(of[3])]
    }

    /// Reads the first `LANES` values of `from`.
    ///
    /// # Panics
    /// When `from` is shorter.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the length was checked.
        unsafe { self.load_ptr(from.as_ptr()) }
    }

    /// Writes the first `LANES` values of `to`.
    ///
    /// # Panics
    /// When `to` is shorter.
    #[inline(always)]
    fn store(self, to: &mut [f32], v: Self::V) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the length was checked.
        unsafe { self.store_ptr(to.as_mut_ptr(), v) }
    }

    /// Reads all of `from`, at most `LANES` values; the other lanes are 0.
    ///
    /// # Panics
    /// When `from` is longer than a vector.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::V {
        assert!(from.len() <= Self::LANES);
        // SAFETY: `from` has that many values.
        unsafe { self.load_part_ptr(from.as_ptr(), from.len()) }
    }

    /// Writes all of `to`, at most `LANES` values.
    ///
    /// # Panics
    /// When `to` is longer than a vector.
    #[inline(always)]
    fn store_part(self, to: &mut [f32], v: Self::V) {
        assert!(to.len() <= Self::LANES);
        // SAFETY: `to` has that many values.
        unsafe { self.store_part_ptr(to.as_mut_ptr(), v, to.len()) }
    }
}

/// Makes a public kernel out of a body that is generic over [`Simd`].
///
/// ```text
/// dispatch! {
///     /// Docs of the kernel.
///     pub fn scale(x: &mut [f32], by: f32) = scale_body;
/// }
/// ```
/// defines `scale(isa: Isa, x: &mut [f32], by: f32)`, which calls `scale_body(simd, x, by)` compiled for `isa`.
/// Asking for an instruction set that is absent here runs the best one below it.
#[macro_export]
macro_rules! dispatch {
    ($(#[$meta:meta])* pub fn $name:ident$(<$($life:lifetime),*>)?($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;) => {
        $(#[$meta])*
        pub fn $name$(<$($life),*>)?(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
            fn avx512$(<$($life),*>)?($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function runs only where the features it enables were detected.
                $body(unsafe { $crate::simd::Avx512::new() }, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2$(<$($life),*>)?($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function runs only where the features it enables were detected.
                $body(unsafe { $crate::simd::Avx2::new() }, $($arg),*)
            }
            match isa.or_below() {
                // SAFETY: `or_below` returns only instruction sets detected on this CPU.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                $crate::isa::Isa::Scalar => $body($crate::simd::Scalar, $($arg),*),
                _ => $body($crate::simd::Portable, $($arg),*),
            }
        }
    };
}
