//! Sets of bits.

/// A set of bits that stand for bytes.
#[derive(Clone, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// `count` bits, none of them set.
    pub(crate) fn new(count: usize) -> Bits {
        Bits { words: vec![0; count.div_ceil(64) + 1] }
    }

    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Whether all of `count` bits from `at` on are set; at most 16 of them, not over a multiple of 64.
    #[inline]
    pub(crate) fn all_of_few(&self, at: usize, count: usize) -> bool {
        let mask = ((1u64 << count) - 1) << (at & 63);
        self.words[at >> 6] & mask == mask
    }

    /// Whether any of `count` bits from `at` on is set; at most 16 of them, not over a multiple of 64.
    #[inline]
    pub(crate) fn any_of_few(&self, at: usize, count: usize) -> bool {
        self.words[at >> 6] & ((1u64 << count) - 1) << (at & 63) != 0
    }

    /// Sets `count` bits from `at` on; at most 16 of them, not over a multiple of 64.
    #[inline]
    pub(crate) fn set_few(&mut self, at: usize, count: usize) {
        self.words[at >> 6] |= ((1u64 << count) - 1) << (at & 63);
    }

    /// Sets or clears `count` bits from `at` on.
    pub(crate) fn fill(&mut self, at: usize, count: usize, value: bool) {
        let (mut at, end) = (at, at + count);
        while at < end {
            let here = (64 - (at & 63)).min(end - at);
            let mask = u64::MAX >> (64 - here) << (at & 63);
            if value {
                self.words[at >> 6] |= mask;
            } else {
                self.words[at >> 6] &= !mask;
            }
            at += here;
        }
    }

    /// The first of `count` bits from `at` on that is not set.
    pub(crate) fn first_clear(&self, at: usize, count: usize) -> Option<usize> {
        (at..at + count).find(|bit| self.words[bit >> 6] >> (bit & 63) & 1 == 0)
    }
}

/// The numbers of the bits that are set in `mask`.
pub(crate) fn lanes_of(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_across_words() {
        let mut bits = Bits::new(200);
        bits.fill(60, 80, true);
        assert_eq!(bits.first_clear(60, 80), None);
        assert_eq!(bits.first_clear(59, 2), Some(59));
        bits.fill(64, 1, false);
        assert_eq!(bits.first_clear(60, 80), Some(64));
        assert!(bits.all_of_few(128, 12));
        assert!(!bits.all_of_few(128, 13));
    }

    #[test]
    fn lanes_in_order() {
        assert_eq!(lanes_of(0x8000_0011).collect::<Vec<_>>(), [0, 4, 31]);
        assert_eq!(lanes_of(0).count(), 0);
    }
}
