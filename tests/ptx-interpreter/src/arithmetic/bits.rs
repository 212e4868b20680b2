//! Logic, shifts, fields of bits.

use crate::lane::{Function, by_type, lanes};
use crate::types::{Type, low_bits};

pub(crate) fn and(ty: Type) -> Option<Function> {
    by_type!(ty, T in [Pred, B16, B32, B64] => lanes!(|a: T, b: T| a & b))
}

pub(crate) fn or(ty: Type) -> Option<Function> {
    by_type!(ty, T in [Pred, B16, B32, B64] => lanes!(|a: T, b: T| a | b))
}

pub(crate) fn xor(ty: Type) -> Option<Function> {
    by_type!(ty, T in [Pred, B16, B32, B64] => lanes!(|a: T, b: T| a ^ b))
}

pub(crate) fn not(ty: Type) -> Option<Function> {
    by_type!(ty, T in [Pred, B16, B32, B64] => lanes!(|a: T| !a))
}

/// One for zero, zero for everything else.
pub(crate) fn logical_not(ty: Type) -> Option<Function> {
    by_type!(ty, T in [B16, B32, B64] => lanes!(|a: T| a == 0))
}

/// A shift beyond the width leaves zeros.
pub(crate) fn shift_left(ty: Type) -> Option<Function> {
    by_type!(ty, T in [B16, B32, B64] => lanes!(|a: T, by: u32| a.checked_shl(by).unwrap_or(0)))
}

/// A shift beyond the width leaves zeros, or copies of the sign.
pub(crate) fn shift_right(ty: Type) -> Option<Function> {
    by_type!(ty, T in [B16, U16, S16, B32, U32, S32, B64, U64, S64]
        => lanes!(|a: T, by: u32| a.checked_shr(by).unwrap_or(a >> (T::BITS / 2) >> (T::BITS / 2 - 1) >> 1)))
}

/// Thirty-two bits of `b` above `a`, from the top after a shift to the left, or from the bottom after one to the
/// right.
pub(crate) fn funnel_shift(left: bool, clamp: bool) -> Function {
    fn both(a: u32, b: u32) -> u64 {
        u64::from(b) << 32 | u64::from(a)
    }
    match (left, clamp) {
        (true, true) => lanes!(|a: u32, b: u32, by: u32| (both(a, b) << by.min(32) >> 32) as u32),
        (true, false) => lanes!(|a: u32, b: u32, by: u32| (both(a, b) << (by & 31) >> 32) as u32),
        (false, true) => lanes!(|a: u32, b: u32, by: u32| (both(a, b) >> by.min(32)) as u32),
        (false, false) => lanes!(|a: u32, b: u32, by: u32| (both(a, b) >> (by & 31)) as u32),
    }
}

pub(crate) fn population(ty: Type) -> Option<Function> {
    by_type!(ty, T in [B32, B64] => lanes!(|a: T| a.count_ones()))
}

pub(crate) fn leading_zeros(ty: Type) -> Option<Function> {
    by_type!(ty, T in [B32, B64] => lanes!(|a: T| a.leading_zeros()))
}

pub(crate) fn reverse(ty: Type) -> Option<Function> {
    by_type!(ty, T in [B32, B64] => lanes!(|a: T| a.reverse_bits()))
}

/// Where the highest bit that is not the sign's stands, or how far it would have to be shifted to the top; all ones
/// if there is none.
pub(crate) fn find_highest(ty: Type, shift_amount: bool) -> Option<Function> {
    match shift_amount {
        false => {
            by_type!(ty, T in [U32, S32, U64, S64] => lanes!(|a: T| highest(without_sign(i128::from(a)))))
        }
        true => by_type!(ty, T in [U32, S32, U64, S64]
        => lanes!(|a: T| match highest(without_sign(i128::from(a))) {
            u32::MAX => u32::MAX,
            position => T::BITS - 1 - position,
        })),
    }
}

/// A negative value's complement: its bits that differ from the sign.
fn without_sign(a: i128) -> u64 {
    (a ^ a >> 127) as u64
}

fn highest(a: u64) -> u32 {
    a.checked_ilog2().unwrap_or(u32::MAX)
}

/// `length` bits of a from `start` on, with the sign of the last one that there is for signed types.
pub(crate) fn extract_field(ty: Type) -> Option<Function> {
    by_type!(ty, T in [U32, S32, U64, S64] => lanes!(|a: T, start: u32, length: u32| {
        field(a as u64, T::BITS, T::MIN != 0, start & 255, length & 255) as T
    }))
}

/// Bits of a value of `bits` bits. Above the field, and where it reaches beyond the value, stand copies of the
/// sign, which is the field's highest bit, or the value's if that comes first.
fn field(a: u64, bits: u32, signed: bool, start: u32, length: u32) -> u64 {
    if length == 0 {
        return 0;
    }
    let present = bits.saturating_sub(start).min(length);
    let value = a.checked_shr(start).unwrap_or(0) & low_bits(present);
    let sign = (start + length - 1).min(bits - 1);
    if signed && a >> sign & 1 == 1 { value | !low_bits(present) } else { value }
}

/// `b` with `length` bits from `start` on taken from the lowest ones of `a`.
pub(crate) fn insert_field(ty: Type) -> Option<Function> {
    by_type!(ty, T in [B32, B64] => lanes!(|a: T, b: T, start: u32, length: u32| {
        let (start, length) = (start & 255, length & 255);
        let mask = low_bits(length).checked_shl(start).unwrap_or(0) as T;
        b & !mask | (a as u64).checked_shl(start).unwrap_or(0) as T & mask
    }))
}

/// Any function of three bits, given by its table.
pub(crate) fn lookup3() -> Function {
    lanes!(|a: u32, b: u32, c: u32, table: u32| {
        let minterm = |i: u32, v: u32, bit: u32| if i >> bit & 1 == 1 { v } else { !v };
        (0..8)
            .filter(|i| table >> i & 1 == 1)
            .fold(0, |sum, i| sum | minterm(i, a, 2) & minterm(i, b, 1) & minterm(i, c, 0))
    })
}

/// Which bytes `prmt` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permutation {
    /// Each by a digit of its own, whose highest bit asks for copies of the byte's sign.
    Chosen,
    /// Four, upwards from one.
    Forward4,
    /// Four, downwards from one.
    Backward4,
    /// One, four times.
    Replicate8,
    /// Two, twice.
    Replicate16,
    /// From a byte on upwards, those before it being that byte.
    EdgeLeft,
    /// Up to a byte, those after it being that byte.
    EdgeRight,
}

/// Four of the eight bytes of `b` above `a`.
pub(crate) fn permute(mode: Permutation) -> Function {
    match mode {
        Permutation::Chosen => lanes!(|a: u32, b: u32, chosen: u32| {
            let digits = [0, 1, 2, 3].map(|i| chosen >> (4 * i) & 15);
            let bytes = gather(a, b, digits);
            u32::from_le_bytes([0, 1, 2, 3].map(|i| match digits[i] & 8 {
                0 => bytes[i],
                _ => (bytes[i] as i8 >> 7) as u8,
            }))
        }),
        Permutation::Forward4 => lanes!(|a: u32, b: u32, at: u32| u32::from_le_bytes(gather(
            a,
            b,
            [0, 1, 2, 3].map(|i| (at & 3) + i)
        ))),
        Permutation::Backward4 => lanes!(|a: u32, b: u32, at: u32| u32::from_le_bytes(gather(
            a,
            b,
            [0, 1, 2, 3].map(|i| (at & 3).wrapping_sub(i) & 7)
        ))),
        Permutation::Replicate8 => {
            lanes!(|a: u32, b: u32, at: u32| u32::from_le_bytes(gather(a, b, [at & 3; 4])))
        }
        Permutation::Replicate16 => lanes!(|a: u32, b: u32, at: u32| u32::from_le_bytes(gather(
            a,
            b,
            [0, 1, 0, 1].map(|i| 2 * (at & 1) + i)
        ))),
        Permutation::EdgeLeft => lanes!(|a: u32, b: u32, at: u32| u32::from_le_bytes(gather(
            a,
            b,
            [0, 1, 2, 3].map(|i| i.max(at & 3))
        ))),
        Permutation::EdgeRight => lanes!(|a: u32, b: u32, at: u32| u32::from_le_bytes(gather(
            a,
            b,
            [0, 1, 2, 3].map(|i| i.min(at & 3))
        ))),
    }
}

/// Bytes of `b` above `a`, by the lowest three bits of their places.
fn gather(a: u32, b: u32, places: [u32; 4]) -> [u8; 4] {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    places.map(|place| bytes[place as usize & 7])
}
