//! The 16-bit formats and tf32.

use super::rounding::{Rounding, f64_to_f32};

/// A bfloat16's bits as the f32 that it is.
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16 (or, with [`Rounding::Zero`], the one nearer to zero); a NaN becomes 0x7fff.
pub(crate) fn f32_to_bf16(value: f32, rounding: Rounding) -> u16 {
    if value.is_nan() {
        return 0x7fff;
    }
    let bits = value.to_bits();
    match rounding {
        Rounding::Zero => (bits >> 16) as u16,
        _ => ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16,
    }
}

/// A half's bits as the f32 that it is.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 0x3ff) / 1024.0);
    match exponent {
        0 => sign * fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

/// `value` as a half's bits; a NaN becomes 0x7fff.
pub(crate) fn f64_to_f16(value: f64, rounding: Rounding) -> u16 {
    if value.is_nan() {
        return 0x7fff;
    }
    let sign = u16::from(value.is_sign_negative()) << 15;
    let size = value.abs();
    // Halves below 2^-14 lie 2^-24 apart, others 2^-10 of their power of two.
    let exponent = if size < 2f64.powi(-14) { -14 } else { size.log2().floor().min(16.0) as i32 };
    let step = 2f64.powi(exponent - 10);
    let steps = super::rounding::to_integral(value / step, rounding).abs();
    let rounded = steps * step;
    if rounded >= 65536.0 {
        let away = match rounding {
            Rounding::Nearest => true,
            Rounding::Zero => size.is_infinite(),
            Rounding::Down => value < 0.0 || size.is_infinite(),
            Rounding::Up => value > 0.0 || size.is_infinite(),
        };
        return sign | if away { 0x7c00 } else { 0x7bff };
    }
    // Counting halves upwards from zero: the steps of an exponent follow those of the one below.
    sign | (((exponent + 14) * 1024) as f64 + steps) as u16
}

/// `value` with ten bits behind the point, rounded to the nearest, ties away from zero (`cvt.rna.tf32.f32`).
pub(crate) fn f32_to_tf32(value: f32) -> u32 {
    if value.is_nan() {
        return 0x7fff_ffff;
    }
    if value.is_infinite() {
        return value.to_bits();
    }
    (value.to_bits() + 0x1000) & !0x1fff
}

/// What a tensor core reads of a register that should hold a tf32: the lowest bits are ignored.
pub(crate) fn tf32_to_f32(bits: u32) -> f32 {
    f32::from_bits(bits & !0x1fff)
}

/// An f64 as a bfloat16, rounded once.
pub(crate) fn f64_to_bf16(value: f64, rounding: Rounding) -> u16 {
    // Rounding to odd keeps what decides a tie.
    let toward_zero = f64_to_f32(value, Rounding::Zero);
    let inexact = f64::from(toward_zero) != value && value.is_finite();
    let sticky = f32::from_bits(toward_zero.to_bits() | u32::from(inexact));
    f32_to_bf16(sticky, rounding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_there_and_back() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            if value.is_nan() {
                assert_eq!(f64_to_f16(value.into(), Rounding::Nearest), 0x7fff);
            } else {
                assert_eq!(f64_to_f16(value.into(), Rounding::Nearest), bits, "{value}");
                assert_eq!(f64_to_f16(value.into(), Rounding::Zero), bits, "{value}");
            }
        }
    }

    #[test]
    fn ties_go_to_the_even_half() {
        let epsilon = 2f64.powi(-10);
        assert_eq!(f64_to_f16(1.0 + epsilon / 2.0, Rounding::Nearest), 0x3c00);
        assert_eq!(f64_to_f16(1.0 + epsilon * 1.5, Rounding::Nearest), 0x3c02);
        assert_eq!(f64_to_f16(65519.0, Rounding::Nearest), 0x7bff);
        assert_eq!(f64_to_f16(65520.0, Rounding::Nearest), 0x7c00);
        assert_eq!(f64_to_f16(1e9, Rounding::Zero), 0x7bff);
        assert_eq!(f64_to_f16(2f64.powi(-25), Rounding::Nearest), 0);
        assert_eq!(f64_to_f16(2f64.powi(-25) * 1.001, Rounding::Nearest), 1);
    }

    #[test]
    fn bfloat16_rounds_ties_to_even() {
        let of = |bits| f32_to_bf16(f32::from_bits(bits), Rounding::Nearest);
        assert_eq!(of(0x3f80_8000), 0x3f80);
        assert_eq!(of(0x3f81_8000), 0x3f82);
        assert_eq!(of(0x3f80_8001), 0x3f81);
        assert_eq!(of(0x7f7f_ffff), 0x7f80);
        assert_eq!(of(0x7fc0_0001), 0x7fff);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_ffff), Rounding::Zero), 0x3f80);
    }

    #[test]
    fn tf32_rounds_ties_away() {
        assert_eq!(f32_to_tf32(f32::from_bits(0x3f80_1000)), 0x3f80_2000);
        assert_eq!(f32_to_tf32(f32::from_bits(0xbf80_1000)), 0xbf80_2000);
        assert_eq!(f32_to_tf32(f32::from_bits(0x3f80_0fff)), 0x3f80_0000);
        assert_eq!(f32_to_tf32(f32::NEG_INFINITY), 0xff80_0000);
    }
}
