//! Conversions (`cvt`).

use super::float::{NAN32, flush};
use super::half::{bf16_to_f32, f16_to_f32, f32_to_tf32, f64_to_bf16, f64_to_f16};
use super::rounding::{Rounding, f64_to_f32, integer_to_f32, integer_to_f64, to_integral};
use crate::bits::lanes_of;
use crate::lane::{Function, Lane, Row, lanes};
use crate::types::{Type, low_bits};

/// A conversion from a type to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub(crate) to: Type,
    pub(crate) from: Type,
    pub(crate) rounding: Rounding,
    /// To an integral number (`.rni` and its like), of a floating-point type too.
    pub(crate) to_integral: bool,
    pub(crate) flush: bool,
    pub(crate) saturate: bool,
    /// A result below zero is zero (`.relu`).
    pub(crate) clamp_negative: bool,
    /// Bits of the register that the result goes to: those of a wider one are filled with the sign.
    pub(crate) target_bits: u32,
}

/// A value between two types, exactly.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Conversion {
    /// The function for a common conversion, if there is one.
    pub(crate) fn plain(self) -> Option<Function> {
        let Conversion { to, from, rounding, target_bits, .. } = self;
        let special = self.flush || self.saturate || self.clamp_negative;
        if special || target_bits != to.bits() || self.to_integral && (!from.is_float() || to.is_float()) {
            return None;
        }
        Some(match (to, from, rounding) {
            (Type::U64 | Type::S64, Type::U32, _) => lanes!(|a: u32| u64::from(a)),
            (Type::U64 | Type::S64, Type::S32, _) => lanes!(|a: i32| i64::from(a)),
            (Type::U32 | Type::S32, Type::U64 | Type::S64 | Type::U32 | Type::S32, _) => lanes!(|a: u32| a),
            (Type::U16 | Type::S16, Type::U64 | Type::S64 | Type::U32 | Type::S32, _) => lanes!(|a: u16| a),
            (Type::U32 | Type::S32, Type::U16, _) => lanes!(|a: u16| u32::from(a)),
            (Type::U32 | Type::S32, Type::S16, _) => lanes!(|a: i16| i32::from(a)),
            (Type::F32, Type::U32, Rounding::Nearest) => lanes!(|a: u32| a as f32),
            (Type::F32, Type::S32, Rounding::Nearest) => lanes!(|a: i32| a as f32),
            (Type::S32, Type::F32, Rounding::Zero) => lanes!(|a: f32| a as i32),
            (Type::U32, Type::F32, Rounding::Zero) => lanes!(|a: f32| a as u32),
            (Type::F64, Type::F32, _) => lanes!(|a: f32| f64::from(a)),
            _ => return None,
        })
    }

    /// The results in the lanes of `mask`.
    pub(crate) fn apply(self, source: &Row, mask: u32, out: &mut Row) {
        for lane in lanes_of(mask) {
            out.set(lane, self.convert(source.get(lane)));
        }
    }

    fn convert(self, bits: u64) -> u64 {
        let number = self.read(bits);
        if self.to.is_float() { self.write_float(number) } else { self.write_integer(number) }
    }

    fn read(self, bits: u64) -> Number {
        Number::Float(match self.from {
            Type::F32 if self.flush => flush(f32::from_lane(bits)).into(),
            Type::F32 => f32::from_lane(bits).into(),
            Type::F64 => f64::from_bits(bits),
            Type::F16 => f16_to_f32(bits as u16).into(),
            Type::Bf16 => bf16_to_f32(bits as u16).into(),
            integer => return Number::Integer(extend(bits, integer)),
        })
    }

    fn write_integer(self, number: Number) -> u64 {
        let (bits, signed) = (self.to.bits(), self.to.is_signed());
        let (least, most) = match signed {
            true => (-1i128 << (bits - 1), (1i128 << (bits - 1)) - 1),
            false => (0, low_bits(bits).into()),
        };
        let value = match number {
            Number::Integer(value) if self.saturate => value.clamp(least, most),
            Number::Integer(value) => value,
            // What does not fit is clamped, and what is not a number is zero.
            Number::Float(value) => (to_integral(value, self.rounding) as i128).clamp(least, most),
        };
        let value = extend(value as u64, self.to);
        value as u64 & low_bits(self.target_bits)
    }

    fn write_float(self, number: Number) -> u64 {
        let rounding = self.rounding;
        let value = match number {
            Number::Integer(value) => match self.to {
                Type::F64 => integer_to_f64(value, rounding),
                Type::F16 => return f64_to_f16(integer_to_f64(value, rounding), rounding).into(),
                // Exact in f64: already rounded to what it becomes.
                _ => integer_to_f32(value, rounding).into(),
            },
            Number::Float(value) if self.to_integral => to_integral(value, rounding),
            Number::Float(value) => value,
        };
        let value = match value {
            v if self.saturate && v.is_nan() => 0.0,
            v if self.saturate => v.clamp(0.0, 1.0),
            v if self.clamp_negative && v <= 0.0 => 0.0,
            v => v,
        };
        match self.to {
            Type::F64 => value.to_lane(),
            Type::F32 if value.is_nan() => NAN32.to_lane(),
            Type::F32 if self.flush => flush(f64_to_f32(value, rounding)).to_lane(),
            Type::F32 => f64_to_f32(value, rounding).to_lane(),
            Type::F16 => f64_to_f16(value, rounding).into(),
            Type::Bf16 => f64_to_bf16(value, rounding).into(),
            _ => u64::from(f32_to_tf32(value as f32)),
        }
    }
}

/// The integer that `bits` are as a value of `ty`.
pub(crate) fn extend(bits: u64, ty: Type) -> i128 {
    let above = 64 - ty.bits();
    if ty.is_signed() {
        i128::from((bits << above) as i64 >> above)
    } else {
        i128::from(bits & low_bits(ty.bits()))
    }
}

/// Two f32 as one register of two 16-bit numbers, `a` in the upper half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedConversion {
    pub(crate) half: Conversion,
}

impl PackedConversion {
    /// The results in the lanes of `mask`.
    pub(crate) fn apply(self, a: &Row, b: &Row, mask: u32, out: &mut Row) {
        for lane in lanes_of(mask) {
            out.set(lane, self.half.convert(a.get(lane)) << 16 | self.half.convert(b.get(lane)));
        }
    }
}
