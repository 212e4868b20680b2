//! Comparisons.

use super::float::flush;
use crate::lane::{Function, by_type, lanes};
use crate::types::Type;

/// What is asked about two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// As the ones above, but true if one of the values is not a number.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    /// Both are numbers.
    Num,
    /// One is not a number.
    Nan,
}

impl Comparison {
    /// The comparison of a name.
    pub(crate) fn parse(name: &str) -> Option<Comparison> {
        Some(match name {
            "eq" => Comparison::Eq,
            "ne" => Comparison::Ne,
            // The second names are those of unsigned integers.
            "lt" | "lo" => Comparison::Lt,
            "le" | "ls" => Comparison::Le,
            "gt" | "hi" => Comparison::Gt,
            "ge" | "hs" => Comparison::Ge,
            "equ" => Comparison::Equ,
            "neu" => Comparison::Neu,
            "ltu" => Comparison::Ltu,
            "leu" => Comparison::Leu,
            "gtu" => Comparison::Gtu,
            "geu" => Comparison::Geu,
            "num" => Comparison::Num,
            "nan" => Comparison::Nan,
            _ => return None,
        })
    }
}

/// Whether one of the values is not a number.
#[inline]
fn unordered<T: PartialOrd>(a: T, b: T) -> bool {
    a.partial_cmp(&b).is_none()
}

/// The comparisons that all types have, of what `$of` makes of the values.
macro_rules! ordered_comparison {
    ($comparison:expr, $T:ty, $of:expr) => {
        match $comparison {
            Comparison::Eq => Some(lanes!(|a: $T, b: $T| $of(a) == $of(b))),
            // Values that are not ordered do not differ either.
            Comparison::Ne => Some(lanes!(|a: $T, b: $T| $of(a) < $of(b) || $of(a) > $of(b))),
            Comparison::Lt => Some(lanes!(|a: $T, b: $T| $of(a) < $of(b))),
            Comparison::Le => Some(lanes!(|a: $T, b: $T| $of(a) <= $of(b))),
            Comparison::Gt => Some(lanes!(|a: $T, b: $T| $of(a) > $of(b))),
            Comparison::Ge => Some(lanes!(|a: $T, b: $T| $of(a) >= $of(b))),
            _ => None,
        }
    };
}

/// All comparisons, of what `$of` makes of the numbers.
macro_rules! float_comparison {
    ($comparison:expr, $T:ty, $of:expr) => {
        match $comparison {
            Comparison::Equ => Some(lanes!(|a: $T, b: $T| unordered(a, b) || $of(a) == $of(b))),
            Comparison::Neu => Some(lanes!(|a: $T, b: $T| $of(a) != $of(b))),
            Comparison::Ltu => Some(lanes!(|a: $T, b: $T| unordered(a, b) || $of(a) < $of(b))),
            Comparison::Leu => Some(lanes!(|a: $T, b: $T| unordered(a, b) || $of(a) <= $of(b))),
            Comparison::Gtu => Some(lanes!(|a: $T, b: $T| unordered(a, b) || $of(a) > $of(b))),
            Comparison::Geu => Some(lanes!(|a: $T, b: $T| unordered(a, b) || $of(a) >= $of(b))),
            Comparison::Num => Some(lanes!(|a: $T, b: $T| !unordered(a, b))),
            Comparison::Nan => Some(lanes!(|a: $T, b: $T| unordered(a, b))),
            ordered => ordered_comparison!(ordered, $T, $of),
        }
    };
}

/// Whether the comparison holds.
pub(crate) fn compare(comparison: Comparison, ty: Type, flushes: bool) -> Option<Function> {
    match ty {
        Type::F32 if flushes => float_comparison!(comparison, f32, flush),
        Type::F32 => float_comparison!(comparison, f32, f32::from),
        Type::F64 => float_comparison!(comparison, f64, f64::from),
        _ if flushes => None,
        _ => by_type!(ty, T in [B16, U16, S16, B32, U32, S32, B64, U64, S64]
            => ordered_comparison!(comparison, T, T::from))
        .flatten(),
    }
}

/// a or b, by the sign of c: a if it is not negative. A c that is not a number chooses b.
pub(crate) fn select_by_sign(control: Type, flushes: bool) -> Option<Function> {
    match control {
        Type::S32 => Some(lanes!(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b })),
        Type::F32 if flushes => Some(lanes!(|a: u64, b: u64, c: f32| if flush(c) >= 0.0 { a } else { b })),
        Type::F32 => Some(lanes!(|a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b })),
        _ => None,
    }
}
