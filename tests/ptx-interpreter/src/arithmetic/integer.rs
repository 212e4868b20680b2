//! Arithmetic on integers. Sums and products wrap; the quotient by zero has all bits set, as on the device.

use crate::lane::{Function, LANES, Row, TwoResults, by_type, lanes};
use crate::types::Type;

/// The next wider type, in which products are exact.
trait Wider: Copy {
    type Wide;
    fn widen(self) -> Self::Wide;
    /// The upper half of `wide`.
    fn upper(wide: Self::Wide) -> Self;
}

macro_rules! wider {
    ($($t:ty: $wide:ty),*) => {
        $(impl Wider for $t {
            type Wide = $wide;
            #[inline]
            fn widen(self) -> $wide {
                self.into()
            }
            #[inline]
            fn upper(wide: $wide) -> $t {
                (wide >> <$t>::BITS) as $t
            }
        })*
    };
}
wider!(u16: u32, i16: i32, u32: u64, i32: i64, u64: u128, i64: i128);

pub(crate) fn add(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64] => lanes!(|a: T, b: T| a.wrapping_add(b)))
}

pub(crate) fn sub(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64] => lanes!(|a: T, b: T| a.wrapping_sub(b)))
}

pub(crate) fn add_saturated(ty: Type) -> Option<Function> {
    by_type!(ty, T in [S32] => lanes!(|a: T, b: T| a.saturating_add(b)))
}

pub(crate) fn sub_saturated(ty: Type) -> Option<Function> {
    by_type!(ty, T in [S32] => lanes!(|a: T, b: T| a.saturating_sub(b)))
}

pub(crate) fn mul_low(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64] => lanes!(|a: T, b: T| a.wrapping_mul(b)))
}

pub(crate) fn mul_high(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64] => lanes!(|a: T, b: T| T::upper(a.widen() * b.widen())))
}

pub(crate) fn mul_wide(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32] => lanes!(|a: T, b: T| a.widen() * b.widen()))
}

pub(crate) fn mad_low(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64] => lanes!(|a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)))
}

pub(crate) fn mad_high(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64]
        => lanes!(|a: T, b: T, c: T| T::upper(a.widen() * b.widen()).wrapping_add(c)))
}

pub(crate) fn mad_wide(ty: Type) -> Option<Function> {
    match ty {
        Type::U16 => Some(lanes!(|a: u16, b: u16, c: u32| (a.widen() * b.widen()).wrapping_add(c))),
        Type::S16 => Some(lanes!(|a: i16, b: i16, c: i32| (a.widen() * b.widen()).wrapping_add(c))),
        Type::U32 => Some(lanes!(|a: u32, b: u32, c: u64| (a.widen() * b.widen()).wrapping_add(c))),
        Type::S32 => Some(lanes!(|a: i32, b: i32, c: i64| (a.widen() * b.widen()).wrapping_add(c))),
        _ => None,
    }
}

/// The product of the lowest 24 bits, 48 of them.
fn product24(a: u32, b: u32, signed: bool) -> i64 {
    let extend = |v: u32| if signed { i64::from((v as i32) << 8 >> 8) } else { i64::from(v & 0xff_ffff) };
    extend(a) * extend(b)
}

/// `mul24`, and `mad24` with a third operand: the lower or the upper 32 of the product's 48 bits.
pub(crate) fn mad24(ty: Type, high: bool) -> Option<Function> {
    match (ty, high) {
        (Type::U32, false) => {
            Some(lanes!(|a: u32, b: u32, c: u32| (product24(a, b, false) as u32).wrapping_add(c)))
        }
        (Type::U32, true) => {
            Some(lanes!(|a: u32, b: u32, c: u32| ((product24(a, b, false) >> 16) as u32).wrapping_add(c)))
        }
        (Type::S32, false) => {
            Some(lanes!(|a: u32, b: u32, c: u32| (product24(a, b, true) as u32).wrapping_add(c)))
        }
        (Type::S32, true) => {
            Some(lanes!(|a: u32, b: u32, c: u32| ((product24(a, b, true) >> 16) as u32).wrapping_add(c)))
        }
        _ => None,
    }
}

/// The sum of absolute differences: |a - b| + c.
pub(crate) fn sad(ty: Type) -> Option<Function> {
    match ty {
        Type::U16 => Some(lanes!(|a: u16, b: u16, c: u16| a.abs_diff(b).wrapping_add(c))),
        Type::S16 => Some(lanes!(|a: i16, b: i16, c: u16| a.abs_diff(b).wrapping_add(c))),
        Type::U32 => Some(lanes!(|a: u32, b: u32, c: u32| a.abs_diff(b).wrapping_add(c))),
        Type::S32 => Some(lanes!(|a: i32, b: i32, c: u32| a.abs_diff(b).wrapping_add(c))),
        Type::U64 => Some(lanes!(|a: u64, b: u64, c: u64| a.abs_diff(b).wrapping_add(c))),
        Type::S64 => Some(lanes!(|a: i64, b: i64, c: u64| a.abs_diff(b).wrapping_add(c))),
        _ => None,
    }
}

pub(crate) fn div(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64]
        => lanes!(|a: T, b: T| if b == 0 { !0 } else { a.wrapping_div(b) }))
}

pub(crate) fn rem(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64]
        => lanes!(|a: T, b: T| if b == 0 { a } else { a.wrapping_rem(b) }))
}

pub(crate) fn min(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64] => lanes!(|a: T, b: T| a.min(b)))
}

pub(crate) fn max(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U16, S16, U32, S32, U64, S64] => lanes!(|a: T, b: T| a.max(b)))
}

pub(crate) fn neg(ty: Type) -> Option<Function> {
    by_type!(ty, T in [S16, S32, S64] => lanes!(|a: T| a.wrapping_neg()))
}

pub(crate) fn abs(ty: Type) -> Option<Function> {
    by_type!(ty, T in [S16, S32, S64] => lanes!(|a: T| a.wrapping_abs()))
}

/// Writes `function(a, b, c, carry)` to both results in each lane: a value and the new carry.
fn with_carry(rows: &[&Row; 4], out: &mut [Row; 2], function: impl Fn(u64, u64, u64, u64) -> (u64, u64)) {
    let [a, b, c, carry] = rows;
    let [value, carried] = out;
    for lane in 0..LANES {
        let results = function(a.get(lane), b.get(lane), c.get(lane), carry.get(lane));
        value.set(lane, results.0);
        carried.set(lane, results.1);
    }
}

/// a + b + carry in `bits` bits. The third operand is not read.
pub(crate) fn add_with_carry(bits: u32) -> TwoResults {
    if bits == 64 { sum_with_carry::<64> } else { sum_with_carry::<32> }
}

fn sum_with_carry<const BITS: u32>(rows: &[&Row; 4], out: &mut [Row; 2]) {
    with_carry(rows, out, |a, b, _, carry| split::<BITS>(u128::from(a) + u128::from(b) + u128::from(carry)));
}

/// a - b - borrow in `bits` bits. The third operand is not read.
pub(crate) fn sub_with_borrow(bits: u32) -> TwoResults {
    if bits == 64 { difference_with_borrow::<64> } else { difference_with_borrow::<32> }
}

fn difference_with_borrow<const BITS: u32>(rows: &[&Row; 4], out: &mut [Row; 2]) {
    with_carry(rows, out, |a, b, _, borrow| {
        let difference = i128::from(a) - i128::from(b) - i128::from(borrow);
        (split::<BITS>(difference as u128).0, u64::from(difference < 0))
    });
}

/// A value of `BITS` bits, and the bit above it.
fn split<const BITS: u32>(sum: u128) -> (u64, u64) {
    let value = sum & (u128::MAX >> (128 - BITS));
    (value as u64, (sum >> BITS) as u64 & 1)
}

/// One half of a * b, and c and the carry on top of it.
pub(crate) fn mad_with_carry(ty: Type, high: bool) -> Option<TwoResults> {
    Some(match (ty, high) {
        (Type::U32, false) => low_mad_with_carry::<32>,
        (Type::S32, false) => low_mad_with_carry::<32>,
        (Type::U64, false) => low_mad_with_carry::<64>,
        (Type::S64, false) => low_mad_with_carry::<64>,
        (Type::U32, true) => high_mad_with_carry::<32, false>,
        (Type::S32, true) => high_mad_with_carry::<32, true>,
        (Type::U64, true) => high_mad_with_carry::<64, false>,
        (Type::S64, true) => high_mad_with_carry::<64, true>,
        _ => return None,
    })
}

fn low_mad_with_carry<const BITS: u32>(rows: &[&Row; 4], out: &mut [Row; 2]) {
    with_carry(rows, out, |a, b, c, carry| {
        let (product, _) = split::<BITS>(u128::from(a) * u128::from(b));
        split::<BITS>(u128::from(product) + u128::from(c) + u128::from(carry))
    });
}

fn high_mad_with_carry<const BITS: u32, const SIGNED: bool>(rows: &[&Row; 4], out: &mut [Row; 2]) {
    let extend = |v: u64| {
        if SIGNED { i128::from(v as i64) << (128 - BITS) >> (128 - BITS) } else { i128::from(v) }
    };
    with_carry(rows, out, |a, b, c, carry| {
        let product = if SIGNED { extend(a) * extend(b) } else { (u128::from(a) * u128::from(b)) as i128 };
        let (high, _) = split::<BITS>((product >> BITS) as u128);
        split::<BITS>(u128::from(high) + u128::from(c) + u128::from(carry))
    });
}
