//! Rounding in all directions.

/// Which neighbour a result that is not representable becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Rounding {
    /// The nearest one, of two equally near the even one (`.rn`).
    #[default]
    Nearest,
    /// The one nearer to zero (`.rz`).
    Zero,
    /// The lower one (`.rm`).
    Down,
    /// The upper one (`.rp`).
    Up,
}

/// A number as an f64 and what is missing to it, less than the distance to the f64's neighbours. Only the sign of the
/// rest counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exact {
    value: f64,
    rest: f64,
}

impl Exact {
    /// a + b.
    pub(crate) fn sum(a: f64, b: f64) -> Exact {
        let value = a + b;
        let b_part = value - a;
        Exact { value, rest: (a - (value - b_part)) + (b - b_part) }
    }

    /// a * b.
    pub(crate) fn product(a: f64, b: f64) -> Exact {
        let value = a * b;
        Exact { value, rest: a.mul_add(b, -value) }
    }

    /// a * b + c.
    pub(crate) fn product_sum(a: f64, b: f64, c: f64) -> Exact {
        let value = a.mul_add(b, c);
        let product = Exact::product(a, b);
        let sum = Exact::sum(product.value, c);
        let small = Exact::sum(sum.rest, product.rest);
        Exact { value, rest: (sum.value - value) + small.value + small.rest }
    }

    /// a / b.
    pub(crate) fn quotient(a: f64, b: f64) -> Exact {
        let value = a / b;
        Exact { value, rest: (-value).mul_add(b, a) * b.signum() }
    }

    /// The square root of a.
    pub(crate) fn root(a: f64) -> Exact {
        let value = a.sqrt();
        Exact { value, rest: (-value).mul_add(value, a) }
    }

    /// As an f64.
    pub(crate) fn to_f64(self, rounding: Rounding) -> f64 {
        let Exact { value, rest } = self;
        if !value.is_finite() || rest == 0.0 || rest.is_nan() {
            return value;
        }
        match rounding {
            Rounding::Up if rest > 0.0 => value.next_up(),
            Rounding::Down if rest < 0.0 => value.next_down(),
            Rounding::Zero if value > 0.0 && rest < 0.0 => value.next_down(),
            Rounding::Zero if value < 0.0 && rest > 0.0 => value.next_up(),
            _ => value,
        }
    }

    /// As an f32.
    pub(crate) fn to_f32(self, rounding: Rounding) -> f32 {
        let Exact { mut value, rest } = self;
        // With an odd last bit the value is no tie between two f32, and lies on the side where the number does.
        if value.is_finite() && rest != 0.0 && !rest.is_nan() && value.to_bits() & 1 == 0 {
            value = if rest > 0.0 { value.next_up() } else { value.next_down() };
        }
        f64_to_f32(value, rounding)
    }
}

/// `value` as an f32.
pub(crate) fn f64_to_f32(value: f64, rounding: Rounding) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let up = match rounding {
        _ if !value.is_finite() => return nearest,
        Rounding::Nearest => return nearest,
        Rounding::Zero => value < 0.0,
        Rounding::Down => false,
        Rounding::Up => true,
    };
    if up && back < value {
        nearest.next_up()
    } else if !up && back > value {
        nearest.next_down()
    } else {
        nearest
    }
}

/// An integer as an f64.
pub(crate) fn integer_to_f64(value: i128, rounding: Rounding) -> f64 {
    let nearest = value as f64;
    Exact { value: nearest, rest: (value - nearest as i128) as f64 }.to_f64(rounding)
}

/// An integer as an f32.
pub(crate) fn integer_to_f32(value: i128, rounding: Rounding) -> f32 {
    let nearest = value as f64;
    Exact { value: nearest, rest: (value - nearest as i128) as f64 }.to_f32(rounding)
}

/// `value` as an integral number.
pub(crate) fn to_integral(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_rounds_to_either_side() {
        let tiny = f64::from(f32::EPSILON) / 4.0;
        let sum = Exact::sum(1.0, tiny);
        assert_eq!(sum.to_f32(Rounding::Nearest), 1.0);
        assert_eq!(sum.to_f32(Rounding::Zero), 1.0);
        assert_eq!(sum.to_f32(Rounding::Down), 1.0);
        assert_eq!(sum.to_f32(Rounding::Up), 1.0 + f32::EPSILON);
        let negative = Exact::sum(-1.0, -tiny);
        assert_eq!(negative.to_f32(Rounding::Down), -1.0 - f32::EPSILON);
        assert_eq!(negative.to_f32(Rounding::Zero), -1.0);
    }

    #[test]
    fn what_is_below_the_f64_decides_a_tie() {
        let half = f64::from(f32::EPSILON) / 2.0;
        assert_eq!(Exact { value: 1.0 + half, rest: 0.0 }.to_f32(Rounding::Nearest), 1.0);
        assert_eq!(Exact { value: 1.0 + half, rest: 1e-30 }.to_f32(Rounding::Nearest), 1.0 + f32::EPSILON);
        assert_eq!(Exact { value: 1.0 + half, rest: -1e-30 }.to_f32(Rounding::Nearest), 1.0);
    }

    #[test]
    fn overflow_depends_on_the_direction() {
        let big = 1e39;
        assert_eq!(f64_to_f32(big, Rounding::Nearest), f32::INFINITY);
        assert_eq!(f64_to_f32(big, Rounding::Zero), f32::MAX);
        assert_eq!(f64_to_f32(-big, Rounding::Up), f32::MIN);
        assert_eq!(f64_to_f32(-big, Rounding::Down), f32::NEG_INFINITY);
    }

    #[test]
    fn integers_of_all_widths() {
        assert_eq!(integer_to_f32(i128::from(u64::MAX), Rounding::Zero), 18446742974197923840.0);
        assert_eq!(integer_to_f32(i128::from(u64::MAX), Rounding::Nearest), 18446744073709551616.0);
        assert_eq!(integer_to_f64((1 << 53) + 1, Rounding::Up), 9007199254740994.0);
        assert_eq!(integer_to_f64((1 << 53) + 1, Rounding::Nearest), 9007199254740992.0);
    }
}
