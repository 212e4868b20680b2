//! Vocabularies: which row of a table a value has. Row 0 is the unknown row.

use xxhash_rust::xxh3::xxh3_64;

use crate::bucket::Buckets;
use crate::numbering::Numbering;
use crate::recipe::{TableRows, WHOLE_CELL};
use crate::text::shown;

/// Which row of a table a value has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Vocabulary {
    /// Values of the fit rows; the value with number `n` has row `n + 1`.
    Values(Numbering),
    /// Integers below this; integer `i` has row `i + 1`.
    Ids(u32),
    /// Any text, in one of this many rows beside the unknown row, which none uses.
    Hash(u32),
    /// Numbers.
    Buckets(Buckets),
}

impl Vocabulary {
    /// The rows that a recipe asks for. `values` gives those of a vocabulary.
    ///
    /// # Errors
    /// Those of `values`.
    pub(crate) fn new<E>(
        rows: &TableRows,
        values: impl FnOnce() -> Result<Numbering, E>,
    ) -> Result<Vocabulary, E> {
        Ok(match rows {
            TableRows::Vocabulary => Vocabulary::Values(values()?),
            TableRows::Ids(ids) => Vocabulary::Ids(*ids),
            TableRows::Hash(rows) => Vocabulary::Hash(*rows),
            TableRows::Buckets(buckets) => Vocabulary::Buckets(buckets.clone()),
        })
    }

    /// Rows of the table, the unknown row included.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Vocabulary::Values(numbering) => numbering.len() + 1,
            Vocabulary::Ids(rows) | Vocabulary::Hash(rows) => *rows as usize + 1,
            Vocabulary::Buckets(buckets) => buckets.rows(),
        }
    }

    /// Checks that every value can have a row.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Vocabulary::Hash(0) => Err("values are hashed to no rows".to_owned()),
            Vocabulary::Buckets(buckets) => buckets.check(),
            _ => Ok(()),
        }
    }

    /// The row of `value`, 0 when it is unknown.
    ///
    /// # Errors
    /// What is wrong with a value that should be an integer id or a number.
    pub(crate) fn row(&self, value: &str) -> Result<u32, String> {
        match self {
            Vocabulary::Values(numbering) => Ok(numbering.get(value).map_or(0, |number| number + 1)),
            Vocabulary::Ids(ids) => match value.trim().parse::<u32>() {
                Ok(id) if id < *ids => Ok(id + 1),
                _ => Err(format!(
                    "{} is not an integer id from 0 to {}: correct the file, raise `ids` of the feature, or leave \
                     `ids` out so that it gets a vocabulary",
                    shown(value),
                    ids.saturating_sub(1)
                )),
            },
            Vocabulary::Hash(rows) => Ok(hashed_row(value, *rows)),
            Vocabulary::Buckets(buckets) => buckets.row(value),
        }
    }
}

/// The row of `value` among `rows` rows beside the unknown row: `1 + h mod rows`, where `h` is the 64-bit XXH3 hash with
/// seed 0 of its UTF-8 bytes as they stand in the cell, read as an unsigned integer. Empty text is a value like any
/// other. Trained models rest on it: it must never change.
fn hashed_row(value: &str, rows: u32) -> u32 {
    1 + (xxh3_64(value.as_bytes()) % u64::from(rows)) as u32
}

/// Counts the values of a table's columns while fitting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    values: Numbering,
    counts: Vec<u32>,
}

impl Counter {
    /// Counts one more `value`.
    pub(crate) fn count(&mut self, value: &str) {
        let number = self.values.number(value) as usize;
        if number == self.counts.len() {
            self.counts.push(0);
        }
        self.counts[number] = self.counts[number].saturating_add(1);
    }

    /// The values seen at least `min_count` times, numbered by first appearance.
    pub(crate) fn finish(self, min_count: u32) -> Numbering {
        if min_count <= 1 {
            return self.values;
        }
        let mut kept = Numbering::default();
        for (value, &count) in self.values.texts().into_iter().zip(&self.counts) {
            if count >= min_count {
                kept.number(value);
            }
        }
        kept
    }
}

/// The values of a list cell: pieces between separators, empty ones left out; or the whole of it, be it empty.
pub(crate) fn pieces<'a>(cell: &'a str, separator: &'a str) -> impl Iterator<Item = &'a str> {
    let whole = separator == WHOLE_CELL;
    let parts = (!whole).then(|| cell.split(separator).filter(|piece| !piece.is_empty()));
    whole.then_some(cell).into_iter().chain(parts.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_values_get_no_row() {
        let mut counter = Counter::default();
        for value in ["rare", "b", "a", "b", "a", "a"] {
            counter.count(value);
        }
        assert_eq!(counter.clone().finish(2).texts(), ["b", "a"]);
        assert_eq!(counter.clone().finish(1).texts(), ["rare", "b", "a"]);
        let vocabulary = Vocabulary::Values(counter.finish(3));
        assert_eq!(vocabulary.rows(), 2);
        assert_eq!(vocabulary.row("a"), Ok(1));
        assert_eq!(vocabulary.row("b"), Ok(0));
    }

    /// Known answers of the reference implementation (xxHash 0.8, `XXH3_64bits`).
    #[test]
    fn hashed_rows_never_change() {
        let vocabulary = Vocabulary::Hash(100_000);
        assert_eq!(vocabulary.rows(), 100_001);
        let long = "0123456789".repeat(40);
        for (value, hash, row) in [
            ("", 0x2d06_8005_38d3_94c2, 3139),
            ("a", 0xe6c6_32b6_1e96_4e1f, 38_720),
            ("user_1", 0x20f9_09ab_6f54_d5a1, 35_586),
            ("标签", 0x81dd_9095_1a50_62f8, 61_401),
            (&long, 0x3692_2527_1cc3_aa41, 1730),
        ] {
            assert_eq!((xxh3_64(value.as_bytes()), vocabulary.row(value)), (hash, Ok(row)), "{value}");
        }
        assert_eq!(Vocabulary::Hash(1).row("anything"), Ok(1));
    }

    #[test]
    fn integer_ids_are_checked() {
        let vocabulary = Vocabulary::Ids(10);
        assert_eq!(vocabulary.rows(), 11);
        assert_eq!(vocabulary.row("9"), Ok(10));
        for wrong in ["10", "-1", "1.0", "", "x"] {
            let message = vocabulary.row(wrong).unwrap_err();
            assert!(message.contains(&format!("`{wrong}` is not an integer id from 0 to 9")), "{message}");
        }
    }

    #[test]
    fn empty_pieces_are_no_values() {
        assert_eq!(pieces("a||b|", "|").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(pieces("", "|").count(), 0);
    }
}
