//! Vocabularies: which row of a table a value has. Row 0 is the unknown row.

use crate::numbering::Numbering;
use crate::text::shown;

/// Which row of a table a value has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Vocabulary {
    /// Values of the fit rows; the value with number `n` has row `n + 1`.
    Values(Numbering),
    /// Integers below this; integer `i` has row `i + 1`.
    Ids(u32),
}

impl Vocabulary {
    /// Rows of the table, the unknown row included.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Vocabulary::Values(numbering) => numbering.len() + 1,
            Vocabulary::Ids(ids) => *ids as usize + 1,
        }
    }

    /// The row of `value`, 0 when it is unknown.
    ///
    /// # Errors
    /// What is wrong with a value that should be an integer id.
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
        }
    }
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

/// The values of a list cell: pieces between separators, empty ones left out.
pub(crate) fn pieces<'a>(cell: &'a str, separator: &'a str) -> impl Iterator<Item = &'a str> {
    cell.split(separator).filter(|piece| !piece.is_empty())
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
