//! Texts numbered by first appearance.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Distinct texts, numbered from 0 by first appearance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbering {
    numbers: HashMap<Box<str>, u32, BuildHasherDefault<TextHasher>>,
}

impl Numbering {
    /// The number of `text`, if it has one.
    pub fn get(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The number of `text`: the next free one when it is new.
    ///
    /// # Panics
    /// With 2^32 distinct texts (which take over 100 GiB).
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.get(text) {
            return number;
        }
        let number = u32::try_from(self.numbers.len()).expect("fewer than 2^32 distinct texts");
        self.numbers.insert(text.into(), number);
        number
    }

    /// How many texts have a number.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether no text has a number.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The texts, by number.
    pub fn texts(&self) -> Vec<&str> {
        let mut texts = vec![""; self.numbers.len()];
        for (text, &number) in &self.numbers {
            texts[number as usize] = text;
        }
        texts
    }
}

/// XXH3 of a text: several times faster than the standard hash on the short texts of a data file.
#[derive(Default)]
struct TextHasher(u64);

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The end mark that `str` adds; with one text a key there is nothing to keep apart.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_first_appearance() {
        let mut numbering = Numbering::default();
        let numbers: Vec<u32> = ["b", "", "b", "a", ""].map(|t| numbering.number(t)).to_vec();
        assert_eq!(numbers, [0, 1, 0, 2, 1]);
        assert_eq!(numbering.texts(), ["b", "", "a"]);
        assert_eq!(numbering.get("c"), None);
    }
}
