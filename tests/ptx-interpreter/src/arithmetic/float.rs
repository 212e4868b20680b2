//! Arithmetic on floating-point numbers.
//!
//! What is common (nearest rounding, no flushing) is a [`Function`] of its own; the other combinations of modifiers
//! share [`Float`], which looks at them in each lane. Results that are not a number are the canonical one of the
//! device for f32. Approximations (`.approx`) are computed as exactly as f64 functions are: kernels must not depend
//! on the error of the device's, about 2^-22 of the result.

use super::rounding::{Exact, Rounding};
use crate::bits::lanes_of;
use crate::lane::{Function, LANES, Lane, Row, lanes};
use crate::types::Type;

/// An operation on one, two or three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Rcp,
    Sqrt,
    Rsqrt,
    Exp2,
    Log2,
    Sin,
    Cos,
    Tanh,
    Min,
    Max,
    Neg,
    Abs,
}

impl Operation {
    /// How many numbers it takes.
    pub(crate) fn arity(self) -> usize {
        match self {
            Operation::Add | Operation::Sub | Operation::Mul | Operation::Div => 2,
            Operation::Min | Operation::Max => 2,
            Operation::Fma => 3,
            _ => 1,
        }
    }
}

/// What modifies an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Modifiers {
    pub(crate) rounding: Rounding,
    /// Subnormal operands and results become zero (`.ftz`).
    pub(crate) flush: bool,
    /// The result is clamped to 0 ..= 1, and is 0 instead of a NaN (`.sat`).
    pub(crate) saturate: bool,
    /// A NaN among the operands is the result (`.NaN` of minimum and maximum).
    pub(crate) propagate_nan: bool,
}

/// The f32 that the device gives for what is not a number.
pub(crate) const NAN32: f32 = f32::from_bits(0x7fff_ffff);

#[inline]
fn canonical(value: f32) -> f32 {
    if value.is_nan() { NAN32 } else { value }
}

/// A subnormal number as the zero of its sign.
#[inline]
pub(crate) fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

/// The function for an operation with nothing special about it, if there is one.
pub(crate) fn plain(operation: Operation, ty: Type, modifiers: Modifiers) -> Option<Function> {
    if modifiers != Modifiers::default() {
        return None;
    }
    Some(match (operation, ty) {
        (Operation::Add, Type::F32) => lanes!(|a: f32, b: f32| canonical(a + b)),
        (Operation::Sub, Type::F32) => lanes!(|a: f32, b: f32| canonical(a - b)),
        (Operation::Mul, Type::F32) => lanes!(|a: f32, b: f32| canonical(a * b)),
        (Operation::Div, Type::F32) => lanes!(|a: f32, b: f32| canonical(a / b)),
        (Operation::Fma, Type::F32) => Function::Three(fused),
        (Operation::Neg, Type::F32) => lanes!(|a: u32| a ^ 0x8000_0000),
        (Operation::Abs, Type::F32) => lanes!(|a: u32| a & 0x7fff_ffff),
        (Operation::Min, Type::F32) => lanes!(|a: f32, b: f32| minimum32(a, b)),
        (Operation::Max, Type::F32) => lanes!(|a: f32, b: f32| maximum32(a, b)),
        (Operation::Add, Type::F64) => lanes!(|a: f64, b: f64| a + b),
        (Operation::Sub, Type::F64) => lanes!(|a: f64, b: f64| a - b),
        (Operation::Mul, Type::F64) => lanes!(|a: f64, b: f64| a * b),
        (Operation::Div, Type::F64) => lanes!(|a: f64, b: f64| a / b),
        (Operation::Fma, Type::F64) => lanes!(|a: f64, b: f64, c: f64| a.mul_add(b, c)),
        (Operation::Neg, Type::F64) => lanes!(|a: u64| a ^ 1 << 63),
        (Operation::Abs, Type::F64) => lanes!(|a: u64| a & !(1 << 63)),
        _ => return None,
    })
}

/// a b + c, rounded once.
///
/// The product is exact in f64, and the sum, rounded to f64 and then to f32, is what one rounding gives unless it lies
/// halfway between two f32, or below the normal ones, which is where it is asked what was rounded away.
fn fused(a: &Row, b: &Row, c: &Row, out: &mut Row) {
    let mut doubtful = 0;
    for lane in 0..LANES {
        let [a, b, c] = [a, b, c].map(|row| f64::from(f32::from_lane(row.get(lane))));
        let sum = a * b + c;
        let (low, high) = (sum.to_bits() as u32, (sum.to_bits() >> 32) as u32 & 0x7fff_ffff);
        doubtful |=
            u32::from(low & 0x1fff_ffff == 0x1000_0000) | u32::from(high.wrapping_sub(1) < LEAST_NORMAL - 1);
        out.set(lane, canonical(sum as f32).to_lane());
    }
    if doubtful != 0 {
        for lane in 0..LANES {
            let [a, b, c] = [a, b, c].map(|row| f32::from_lane(row.get(lane)));
            out.set(lane, canonical(a.mul_add(b, c)).to_lane());
        }
    }
}

/// The upper half of the least normal f32 as an f64.
const LEAST_NORMAL: u32 = ((f32::MIN_POSITIVE as f64).to_bits() >> 32) as u32;

/// The smaller number; a NaN only if both are, and -0 is smaller than 0.
#[inline]
fn minimum32(a: f32, b: f32) -> f32 {
    let equal = f32::from_bits(a.to_bits() | b.to_bits());
    let smaller = if a == b {
        equal
    } else if a < b {
        a
    } else {
        b
    };
    canonical(if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else {
        smaller
    })
}

/// The larger number; a NaN only if both are, and -0 is smaller than 0.
#[inline]
fn maximum32(a: f32, b: f32) -> f32 {
    let equal = f32::from_bits(a.to_bits() & b.to_bits());
    let larger = if a == b {
        equal
    } else if a > b {
        a
    } else {
        b
    };
    canonical(if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else {
        larger
    })
}

/// The smaller or larger number; a NaN only if both are, and -0 is smaller than 0.
fn extreme64(a: f64, b: f64, smaller: bool) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() { b } else { a };
    }
    if (a.total_cmp(&b).is_lt()) == smaller { a } else { b }
}

/// An operation with its modifiers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Float {
    pub(crate) operation: Operation,
    pub(crate) modifiers: Modifiers,
    /// f64, else f32.
    pub(crate) double: bool,
}

impl Float {
    /// The results in the lanes of `mask`.
    pub(crate) fn apply(self, sources: [&Row; 3], mask: u32, out: &mut Row) {
        for lane in lanes_of(mask) {
            let operands = sources.map(|row| row.get(lane));
            let result = if self.double {
                self.in_f64(operands.map(f64::from_lane)).to_lane()
            } else {
                self.in_f32(operands.map(f32::from_lane)).to_lane()
            };
            out.set(lane, result);
        }
    }

    fn in_f32(self, operands: [f32; 3]) -> f32 {
        let Modifiers { rounding, flush: flushes, saturate, propagate_nan } = self.modifiers;
        let [a, b, c] = if flushes { operands.map(flush) } else { operands };
        let [wide_a, wide_b, wide_c] = [a, b, c].map(f64::from);
        // One rounding, that to f32, for what is exact to the last bit; functions round twice, far within their error.
        let value = match self.operation {
            Operation::Add => Exact::sum(wide_a, wide_b).to_f32(rounding),
            Operation::Sub => Exact::sum(wide_a, -wide_b).to_f32(rounding),
            Operation::Mul => Exact::product(wide_a, wide_b).to_f32(rounding),
            Operation::Fma => Exact::product_sum(wide_a, wide_b, wide_c).to_f32(rounding),
            Operation::Div => Exact::quotient(wide_a, wide_b).to_f32(rounding),
            Operation::Rcp => Exact::quotient(1.0, wide_a).to_f32(rounding),
            Operation::Sqrt => Exact::root(wide_a).to_f32(rounding),
            Operation::Rsqrt => (1.0 / wide_a.sqrt()) as f32,
            Operation::Exp2 => wide_a.exp2() as f32,
            Operation::Log2 => wide_a.log2() as f32,
            Operation::Sin => wide_a.sin() as f32,
            Operation::Cos => wide_a.cos() as f32,
            Operation::Tanh => wide_a.tanh() as f32,
            Operation::Min | Operation::Max if propagate_nan && (a.is_nan() || b.is_nan()) => NAN32,
            Operation::Min => minimum32(a, b),
            Operation::Max => maximum32(a, b),
            Operation::Neg => -a,
            Operation::Abs => a.abs(),
        };
        let value = if flushes { flush(value) } else { value };
        match saturate {
            true if value.is_nan() => 0.0,
            true => value.clamp(0.0, 1.0),
            false => canonical(value),
        }
    }

    fn in_f64(self, [a, b, c]: [f64; 3]) -> f64 {
        let rounding = self.modifiers.rounding;
        match self.operation {
            Operation::Add => Exact::sum(a, b).to_f64(rounding),
            Operation::Sub => Exact::sum(a, -b).to_f64(rounding),
            Operation::Mul => Exact::product(a, b).to_f64(rounding),
            Operation::Fma => Exact::product_sum(a, b, c).to_f64(rounding),
            Operation::Div => Exact::quotient(a, b).to_f64(rounding),
            Operation::Rcp => Exact::quotient(1.0, a).to_f64(rounding),
            Operation::Sqrt => Exact::root(a).to_f64(rounding),
            Operation::Rsqrt => 1.0 / a.sqrt(),
            Operation::Exp2 => a.exp2(),
            Operation::Log2 => a.log2(),
            Operation::Sin => a.sin(),
            Operation::Cos => a.cos(),
            Operation::Tanh => a.tanh(),
            Operation::Min => extreme64(a, b, true),
            Operation::Max => extreme64(a, b, false),
            Operation::Neg => -a,
            Operation::Abs => a.abs(),
        }
    }
}

/// The size of b with the sign of a, as `copysign` of PTX has its operands.
pub(crate) fn copy_sign(ty: Type) -> Option<Function> {
    match ty {
        Type::F32 => Some(lanes!(|a: f32, b: f32| b.copysign(a))),
        Type::F64 => Some(lanes!(|a: f64, b: f64| b.copysign(a))),
        _ => None,
    }
}

/// A question about a number.
pub(crate) fn test_property(question: &str, ty: Type) -> Option<Function> {
    macro_rules! both {
        ($a:ident => $answer:expr) => {
            match ty {
                Type::F32 => Some(lanes!(|$a: f32| $answer)),
                Type::F64 => Some(lanes!(|$a: f64| $answer)),
                _ => None,
            }
        };
    }
    match question {
        "finite" => both!(a => a.is_finite()),
        "infinite" => both!(a => a.is_infinite()),
        "number" => both!(a => !a.is_nan()),
        "notanumber" => both!(a => a.is_nan()),
        "normal" => both!(a => a.is_normal()),
        "subnormal" => both!(a => a.is_subnormal() || a == 0.0),
        _ => None,
    }
}
