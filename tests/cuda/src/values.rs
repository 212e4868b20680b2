//! Values to test with.

use crate::Gpu;
use manygate_cuda::{DeviceMat, Element};
use proptest::prelude::*;

/// `len` repeatable values in `-scale ..= scale`, with a few exact zeros.
pub fn values(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..len).map(|i| if i % 29 == 28 { 0.0 } else { (2.0 * next() - 1.0) * scale }).collect()
}

/// The bf16 nearest to `value`, of two the even one: its bits.
pub fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        0x7fff
    } else {
        ((u64::from(bits) + 0x7fff + u64::from(bits >> 16 & 1)) >> 16) as u16
    }
}

/// The nearest tf32, of two the one away from zero.
pub fn to_tf32(value: f32) -> f32 {
    f32::from_bits(value.to_bits().wrapping_add(0x1000) & !0x1fff)
}

/// The value of a bf16.
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `value` as it comes back from a matrix of `element`.
pub fn stored(element: Element, value: f32) -> f32 {
    match element {
        Element::F32 => value,
        Element::Bf16 => from_bf16(to_bf16(value)),
    }
}

/// A matrix inside a larger one: of how many rows some may not be there, columns lie before and behind it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Most rows.
    pub rows: usize,
    /// Rows that are there.
    pub live: usize,
    /// Columns.
    pub cols: usize,
    /// Columns before it.
    pub before: usize,
    /// Columns behind it.
    pub behind: usize,
    /// What its values are.
    pub element: Element,
}

impl Window {
    /// All of a matrix of f32.
    pub fn whole(rows: usize, cols: usize) -> Window {
        Window { rows, live: rows, cols, before: 0, behind: 0, element: Element::F32 }
    }

    /// Any small one, of one block or two: some rows not there, aligned to vectors or not.
    pub fn any() -> impl Strategy<Value = Window> {
        let (few, cols) =
            (prop_oneof![Just(0usize), Just(8), 0usize..9], prop_oneof![0usize..20, Just(64), 60usize..70]);
        let sizes = (
            prop_oneof![3 => 0usize..6, 1 => Just(40)],
            prop_oneof![Just(0usize), 0usize..4],
            cols,
            few.clone(),
            few,
            any::<bool>(),
        );
        sizes.prop_map(|(rows, missing, cols, before, behind, is_bf16)| Window {
            rows,
            live: rows.saturating_sub(missing),
            cols,
            before,
            behind,
            element: if is_bf16 { Element::Bf16 } else { Element::F32 },
        })
    }

    /// Values from one row to the next.
    pub fn stride(&self) -> usize {
        self.before + self.cols + self.behind
    }

    /// Values of the larger matrix.
    pub fn len(&self) -> usize {
        self.rows * self.stride()
    }

    /// Whether the larger matrix has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// [`values`] for the larger matrix, each as it is stored.
    pub fn values(&self, seed: u64, scale: f32) -> Vec<f32> {
        values(seed, self.len(), scale).into_iter().map(|v| stored(self.element, v)).collect()
    }

    /// The values of the window in rows that are there, row by row.
    pub fn live_values(&self, all: &[f32]) -> Vec<f32> {
        let columns = self.before..self.before + self.cols;
        (0..self.live).flat_map(|r| &all[r * self.stride()..][columns.clone()]).copied().collect()
    }

    /// `all` with the window's values in rows that are there replaced.
    pub fn replaced(&self, all: &[f32], live: &[f32]) -> Vec<f32> {
        let mut all = all.to_vec();
        for (i, &value) in live.iter().enumerate() {
            all[i / self.cols * self.stride() + self.before + i % self.cols] = stored(self.element, value);
        }
        all
    }

    /// The first value of `found`, the larger matrix, that is wrong: inside, where it is further from `expected` than
    /// `tolerance` times `scale` and what rounding to the window's element takes; outside, where it is not `before`.
    pub fn difference(
        &self,
        before: &[f32],
        found: &[f32],
        expected: &[f32],
        scale: &[f32],
        tolerance: f32,
    ) -> Option<String> {
        let inside = self.live_values(found);
        if let Some(difference) = first_difference(found, &self.replaced(before, &inside)) {
            return Some(format!("outside: {difference}"));
        }
        let rounding = if self.element == Element::Bf16 { 1.0 / 256.0 } else { 0.0 };
        let allowed = |i: usize| tolerance * scale[i].abs() + rounding * expected[i].abs();
        let fits = |i: usize| (inside[i] - expected[i]).abs() <= allowed(i);
        let at = (0..inside.len()).find(|&i| !fits(i))?;
        Some(format!("{}, {}: {}, not {}", at / self.cols, at % self.cols, inside[at], expected[at]))
    }

    /// The window on a copy of `all`; with an address of the number of live rows unless all rows are there.
    pub fn upload(&self, gpu: &mut Gpu, all: &[f32]) -> DeviceMat {
        assert_eq!(all.len(), self.len());
        let address = match self.element {
            Element::F32 => gpu.upload(all),
            Element::Bf16 => gpu.upload(&all.iter().map(|&v| to_bf16(v)).collect::<Vec<_>>()),
        };
        let live_rows = if self.live < self.rows { gpu.upload(&[self.live as u32]) } else { 0 };
        let address = address + self.before as u64 * self.element.bytes();
        let (rows, cols, stride) = (self.rows as u32, self.cols as u32, self.stride() as u32);
        DeviceMat { address, live_rows, rows, cols, stride, element: self.element }
    }

    /// All values of the larger matrix.
    pub fn download(&self, gpu: &mut Gpu, mat: DeviceMat) -> Vec<f32> {
        let address = mat.address - self.before as u64 * self.element.bytes();
        match self.element {
            Element::F32 => gpu.download(address, self.len()),
            Element::Bf16 => gpu.download(address, self.len()).into_iter().map(from_bf16).collect(),
        }
    }
}

/// The first value that differs in its bits, NaN from NaN aside: where it is, and both.
pub fn first_difference(found: &[f32], expected: &[f32]) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} values, not {}", found.len(), expected.len()));
    }
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let at = found.iter().zip(expected).position(|pair| !same(pair))?;
    Some(format!("value {at}: {:?}, not {:?}", found[at], expected[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_bf16_of_two_the_even_one() {
        let ties = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0].map(|v| stored(Element::Bf16, v));
        assert_eq!(ties, [1.0, 1.0 + 4.0 / 256.0]);
        assert_eq!(stored(Element::Bf16, f32::MAX), f32::INFINITY);
        assert!(stored(Element::Bf16, f32::NAN).is_nan());
    }
}
