//! One small vector trait, so that a kernel is written once and compiled for every instruction set.
//!
//! A kernel body is generic over [`Simd`] and `#[inline(always)]`; the [`dispatch!`](crate::dispatch) macro wraps it
//! in one `#[target_feature]` function an instruction set. A value of [`Avx2`] or [`Avx512`] is the proof that the
//! CPU has the instructions, so the methods are safe to call.

use crate::isa::Isa;

/// Vector operations on `LANES` f32 values.
///
/// `mul_add` is fused on every set, also the scalar one, so that sets differ by the order of sums alone.
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
    /// `a * b + c`, rounded once.
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

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use crate::isa::Isa;
    use std::arch::x86_64::*;

    /// Proof that AVX2 and FMA exist here.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx2(());

    /// Proof that AVX-512 F, VL, BW and DQ exist here.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512(());

    impl Avx2 {
        /// # Safety
        /// The CPU has AVX2 and FMA.
        pub unsafe fn new() -> Self {
            Avx2(())
        }
    }

    impl Avx512 {
        /// # Safety
        /// The CPU has AVX-512 F, VL, BW and DQ.
        pub unsafe fn new() -> Self {
            Avx512(())
        }
    }

    /// Wraps an intrinsic call: `self` proves that the instructions exist, and the pointers are the caller's.
    macro_rules! x86 {
        ($e:expr) => {{
            // SAFETY: the receiver is the proof that this CPU has the instruction set; pointer arguments, where
            // there are any, are valid by the contract of the surrounding method.
            unsafe { $e }
        }};
    }

    impl Avx2 {
        #[inline(always)]
        fn lanes_below(self, count: usize) -> __m256i {
            x86!({
                let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane)
            })
        }
    }

    impl Simd for Avx2 {
        type V = __m256;
        type M = __m256;
        const LANES: usize = 8;
        const ISA: Isa = Isa::Avx2;

        #[inline(always)]
        fn splat(self, x: f32) -> __m256 {
            x86!(_mm256_set1_ps(x))
        }
        #[inline(always)]
        unsafe fn load_ptr(self, from: *const f32) -> __m256 {
            x86!(_mm256_loadu_ps(from))
        }
        #[inline(always)]
        unsafe fn store_ptr(self, to: *mut f32, v: __m256) {
            x86!(_mm256_storeu_ps(to, v))
        }
        #[inline(always)]
        unsafe fn load_part_ptr(self, from: *const f32, count: usize) -> __m256 {
            x86!(_mm256_maskload_ps(from, self.lanes_below(count)))
        }
        #[inline(always)]
        unsafe fn store_part_ptr(self, to: *mut f32, v: __m256, count: usize) {
            x86!(_mm256_maskstore_ps(to, self.lanes_below(count), v))
        }
        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            x86!(_mm256_add_ps(a, b))
        }
        #[inline(always)]
        fn sub(self, a: __m256, b: __m256) -> __m256 {
            x86!(_mm256_sub_ps(a, b))
        }
        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            x86!(_mm256_mul_ps(a, b))
        }
        #[inline(always)]
        fn div(self, a: __m256, b: __m256) -> __m256 {
            x86!(_mm256_div_ps(a, b))
        }
        #[inline(always)]
        fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            x86!(_mm256_fmadd_ps(a, b, c))
        }
        #[inline(always)]
        fn max(self, a: __m256, b: __m256) -> __m256 {
            x86!(_mm256_max_ps(a, b))
        }
        #[inline(always)]
        fn min(self, a: __m256, b: __m256) -> __m256 {
            x86!(_mm256_min_ps(a, b))
        }
        #[inline(always)]
        fn sqrt(self, a: __m256) -> __m256 {
            x86!(_mm256_sqrt_ps(a))
        }
        #[inline(always)]
        fn abs(self, a: __m256) -> __m256 {
            x86!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
        }
        #[inline(always)]
        fn round(self, a: __m256) -> __m256 {
            x86!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
        }
        #[inline(always)]
        fn scale_by_power_of_two(self, a: __m256, n: __m256) -> __m256 {
            x86!({
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            })
        }
        #[inline(always)]
        fn greater(self, a: __m256, b: __m256) -> __m256 {
            x86!(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b))
        }
        #[inline(always)]
        fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 {
            x86!(_mm256_blendv_ps(b, a, mask))
        }
        #[inline(always)]
        fn sum(self, a: __m256) -> f32 {
            x86!({
                let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
                _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
            })
        }
    }

    #[inline(always)]
    fn lanes_below(count: usize) -> __mmask16 {
        debug_assert!(count <= 16);
        ((1u32 << count) - 1) as __mmask16
    }

    impl Simd for Avx512 {
        type V = __m512;
        type M = __mmask16;
        const LANES: usize = 16;
        const ISA: Isa = Isa::Avx512;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            x86!(_mm512_set1_ps(x))
        }
        #[inline(always)]
        unsafe fn load_ptr(self, from: *const f32) -> __m512 {
            x86!(_mm512_loadu_ps(from))
        }
        #[inline(always)]
        unsafe fn store_ptr(self, to: *mut f32, v: __m512) {
            x86!(_mm512_storeu_ps(to, v))
        }
        #[inline(always)]
        unsafe fn load_part_ptr(self, from: *const f32, count: usize) -> __m512 {
            x86!(_mm512_maskz_loadu_ps(lanes_below(count), from))
        }
        #[inline(always)]
        unsafe fn store_part_ptr(self, to: *mut f32, v: __m512, count: usize) {
            x86!(_mm512_mask_storeu_ps(to, lanes_below(count), v))
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            x86!(_mm512_add_ps(a, b))
        }
        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            x86!(_mm512_sub_ps(a, b))
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            x86!(_mm512_mul_ps(a, b))
        }
        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            x86!(_mm512_div_ps(a, b))
        }
        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            x86!(_mm512_fmadd_ps(a, b, c))
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            x86!(_mm512_max_ps(a, b))
        }
        #[inline(always)]
        fn min(self, a: __m512, b: __m512) -> __m512 {
            x86!(_mm512_min_ps(a, b))
        }
        #[inline(always)]
        fn sqrt(self, a: __m512) -> __m512 {
            x86!(_mm512_sqrt_ps(a))
        }
        #[inline(always)]
        fn abs(self, a: __m512) -> __m512 {
            x86!(_mm512_abs_ps(a))
        }
        #[inline(always)]
        fn round(self, a: __m512) -> __m512 {
            x86!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
        }
        #[inline(always)]
        fn scale_by_power_of_two(self, a: __m512, n: __m512) -> __m512 {
            x86!(_mm512_scalef_ps(a, n))
        }
        #[inline(always)]
        fn greater(self, a: __m512, b: __m512) -> __mmask16 {
            x86!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b))
        }
        #[inline(always)]
        fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
            x86!(_mm512_mask_blend_ps(mask, b, a))
        }
        #[inline(always)]
        fn sum(self, a: __m512) -> f32 {
            x86!(_mm512_reduce_add_ps(a))
        }
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
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512$(<$($life),*>)?($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: this function runs only where the features it enables were detected.
                    $body(unsafe { $crate::simd::Avx512::new() }, $($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2$(<$($life),*>)?($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: this function runs only where the features it enables were detected.
                    $body(unsafe { $crate::simd::Avx2::new() }, $($arg),*)
                }
                match isa.or_below() {
                    // SAFETY: `or_below` returns only instruction sets detected on this CPU.
                    $crate::isa::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::isa::Isa::Scalar => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            $body($crate::simd::Scalar, $($arg),*)
        }
    };
}
