//! Registers of a warp, and functions over all lanes of them.

/// Threads of a warp.
pub(crate) const LANES: usize = 32;

/// A register in each lane of a warp: the value's bits, zeros above them. The halves lie apart, because most values
/// have 32 bits: four of them at a time are computed then.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Row {
    low: [u32; LANES],
    high: [u32; LANES],
}

impl Row {
    /// Zero in each lane.
    pub(crate) const ZERO: Row = Row { low: [0; LANES], high: [0; LANES] };

    /// `value` in each lane.
    #[inline]
    pub(crate) fn splat(value: u64) -> Row {
        Row { low: [value as u32; LANES], high: [(value >> 32) as u32; LANES] }
    }

    /// The value of a lane.
    #[inline]
    pub(crate) fn get(&self, lane: usize) -> u64 {
        u64::from(self.high[lane]) << 32 | u64::from(self.low[lane])
    }

    #[inline]
    pub(crate) fn set(&mut self, lane: usize, value: u64) {
        self.low[lane] = value as u32;
        self.high[lane] = (value >> 32) as u32;
    }

    /// The lower halves of all lanes.
    pub(crate) fn low_halves(&self) -> [u32; LANES] {
        self.low
    }

    /// Takes the values of `other` in the lanes of `mask`.
    #[inline]
    pub(crate) fn copy_lanes(&mut self, other: &Row, mask: u32) {
        for lane in 0..LANES {
            let takes = 0u32.wrapping_sub(mask >> lane & 1);
            self.low[lane] ^= (self.low[lane] ^ other.low[lane]) & takes;
            self.high[lane] ^= (self.high[lane] ^ other.high[lane]) & takes;
        }
    }

    /// The lanes in which a predicate is true.
    #[inline]
    pub(crate) fn truths(&self) -> u32 {
        self.low.iter().enumerate().fold(0, |set, (lane, value)| set | (value & 1) << lane)
    }
}

/// A value that a register holds.
pub(crate) trait Lane: Copy {
    /// The value of `bits`; what lies above the value's width is not looked at.
    fn from_lane(bits: u64) -> Self;
    /// Its bits, zeros above them.
    fn to_lane(self) -> u64;
}

macro_rules! integer_lanes {
    ($($t:ty: $unsigned:ty),*) => {
        $(impl Lane for $t {
            #[inline]
            fn from_lane(bits: u64) -> $t {
                bits as $t
            }
            #[inline]
            fn to_lane(self) -> u64 {
                u64::from(self as $unsigned)
            }
        })*
    };
}
integer_lanes!(u8: u8, u16: u16, u32: u32, u64: u64, i8: u8, i16: u16, i32: u32, i64: u64);

impl Lane for bool {
    #[inline]
    fn from_lane(bits: u64) -> bool {
        bits != 0
    }
    #[inline]
    fn to_lane(self) -> u64 {
        u64::from(self)
    }
}

impl Lane for f32 {
    #[inline]
    fn from_lane(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
    }
    #[inline]
    fn to_lane(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Lane for f64 {
    #[inline]
    fn from_lane(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    #[inline]
    fn to_lane(self) -> u64 {
        self.to_bits()
    }
}

/// A function of registers, over all lanes at once. It must not panic: lanes that do not take part hold anything.
#[derive(Clone, Copy)]
pub(crate) enum Function {
    One(fn(&Row, &mut Row)),
    Two(fn(&Row, &Row, &mut Row)),
    Three(fn(&Row, &Row, &Row, &mut Row)),
    Four(fn(&Row, &Row, &Row, &Row, &mut Row)),
}

impl Function {
    /// How many registers it reads.
    pub(crate) fn arity(self) -> usize {
        match self {
            Function::One(_) => 1,
            Function::Two(_) => 2,
            Function::Three(_) => 3,
            Function::Four(_) => 4,
        }
    }
}

/// A function of registers with two results, as sums with a carry and comparisons with two predicates have.
pub(crate) type TwoResults = fn(&[&Row; 4], &mut [Row; 2]);

/// The [`Function`] that is the given closure in each lane: `lanes!(|a: u32, b: u32| a.wrapping_add(b))`.
macro_rules! lanes {
    (|$a:ident: $A:ty| $value:expr) => {
        $crate::lane::Function::One(|a, out| {
            for lane in 0..$crate::lane::LANES {
                let $a = <$A as $crate::lane::Lane>::from_lane(a.get(lane));
                out.set(lane, $crate::lane::Lane::to_lane($value));
            }
        })
    };
    (|$a:ident: $A:ty, $b:ident: $B:ty| $value:expr) => {
        $crate::lane::Function::Two(|a, b, out| {
            for lane in 0..$crate::lane::LANES {
                let $a = <$A as $crate::lane::Lane>::from_lane(a.get(lane));
                let $b = <$B as $crate::lane::Lane>::from_lane(b.get(lane));
                out.set(lane, $crate::lane::Lane::to_lane($value));
            }
        })
    };
    (|$a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty| $value:expr) => {
        $crate::lane::Function::Three(|a, b, c, out| {
            for lane in 0..$crate::lane::LANES {
                let $a = <$A as $crate::lane::Lane>::from_lane(a.get(lane));
                let $b = <$B as $crate::lane::Lane>::from_lane(b.get(lane));
                let $c = <$C as $crate::lane::Lane>::from_lane(c.get(lane));
                out.set(lane, $crate::lane::Lane::to_lane($value));
            }
        })
    };
    (|$a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty, $d:ident: $D:ty| $value:expr) => {
        $crate::lane::Function::Four(|a, b, c, d, out| {
            for lane in 0..$crate::lane::LANES {
                let $a = <$A as $crate::lane::Lane>::from_lane(a.get(lane));
                let $b = <$B as $crate::lane::Lane>::from_lane(b.get(lane));
                let $c = <$C as $crate::lane::Lane>::from_lane(c.get(lane));
                let $d = <$D as $crate::lane::Lane>::from_lane(d.get(lane));
                out.set(lane, $crate::lane::Lane::to_lane($value));
            }
        })
    };
}

/// `$value` with `$T` as the Rust type of an integer type of PTX; none for types that are not listed.
macro_rules! by_type {
    ($type:expr, $T:ident in [$($pattern:ident),*] => $value:expr) => {
        match $type {
            $($crate::types::Type::$pattern => {
                type $T = $crate::lane::by_type!(@$pattern);
                Some($value)
            })*
            _ => None,
        }
    };
    (@B16) => { u16 }; (@U16) => { u16 }; (@S16) => { i16 };
    (@B32) => { u32 }; (@U32) => { u32 }; (@S32) => { i32 };
    (@B64) => { u64 }; (@U64) => { u64 }; (@S64) => { i64 };
    (@Pred) => { bool }; (@F32) => { f32 }; (@F64) => { f64 };
}

pub(crate) use {by_type, lanes};
