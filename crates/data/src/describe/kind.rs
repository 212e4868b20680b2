//! What a column holds, by its cells and its name.

use serde::Serialize;

use super::column::{SEPARATORS, Sketch};
use super::names;

/// Whole numbers with more different values than this are amounts, not codes.
const MAX_CODES: u64 = 32;
/// Rows from which on a different value in each tells something.
const MANY_ROWS: u64 = 100;
/// Least share of the cells that a separator stands in.
const LIST_SHARE: f64 = 0.02;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One value, or none, in all rows.
    Constant,
    /// 0 and 1 alone: a label, or a flag.
    Binary,
    /// An amount.
    Numeric,
    /// One of some values.
    Categorical,
    /// Several values in a cell.
    List {
        /// What stands between them.
        separator: char,
        /// Most values in a cell.
        longest: u64,
    },
    /// A time or date.
    Time,
    /// Another value in nearly every row: it says nothing of other rows.
    Unique,
}

impl Kind {
    /// One word for a table.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Constant => "constant",
            Kind::Binary => "0/1",
            Kind::Numeric => "numeric",
            Kind::Categorical => "categorical",
            Kind::List { .. } => "list",
            Kind::Time => "time",
            Kind::Unique => "unique",
        }
    }

    pub(super) fn of(name: &str, sketch: &Sketch) -> Kind {
        let distinct = sketch.values.distinct().count;
        if distinct == 0 || (distinct == 1 && sketch.empty == 0) {
            return Kind::Constant;
        }
        if sketch.is_binary() {
            return Kind::Binary;
        }
        if let Some(list) = list(sketch) {
            return list;
        }
        if names::is_time(name) {
            return Kind::Time;
        }
        let (numbers, is_id) = (sketch.numbers, names::is_id(name));
        let is_amount =
            sketch.is_numeric() && !is_id && (numbers.whole < numbers.count || distinct > MAX_CODES);
        if is_amount {
            Kind::Numeric
        } else if sketch.rows >= MANY_ROWS && distinct as f64 > 0.97 * sketch.rows as f64 {
            Kind::Unique
        } else {
            Kind::Categorical
        }
    }
}

/// The list that the cells are, by the first separator that divides them into plain values. A fixed small number of
/// pieces is something else: a range, a pair, a date with its time.
fn list(sketch: &Sketch) -> Option<Kind> {
    let found = sketch.lists.iter().zip(SEPARATORS).find(|(lists, _)| {
        let frequent = lists.cells > 0 && lists.cells as f64 >= LIST_SHARE * sketch.present() as f64;
        let varies = lists.cells < sketch.present() || lists.shortest < lists.longest || lists.longest > 4;
        frequent && varies && lists.unclean * 20 <= lists.cells
    });
    found.map(|(lists, separator)| Kind::List { separator: separator.into(), longest: lists.longest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, cells: impl IntoIterator<Item = impl AsRef<str>>) -> Kind {
        let mut sketch = Sketch::default();
        for cell in cells {
            sketch.add(cell.as_ref());
        }
        Kind::of(name, &sketch)
    }

    #[test]
    fn kinds_follow_from_cells_and_names() {
        let numbered = |n: u64| (0..n).map(|i| i.to_string());
        assert_eq!(kind("a", ["x", "x"]), Kind::Constant);
        assert_eq!(kind("a", ["", ""]), Kind::Constant);
        assert_eq!(kind("a", ["0", "1", "0"]), Kind::Binary);
        assert_eq!(kind("a", ["0", "1", ""]), Kind::Categorical, "a label cannot be missing");
        assert_eq!(kind("price", ["0.5", "1", "NA"]), Kind::Numeric);
        assert_eq!(kind("price", ["1", "2", "x"]), Kind::Categorical);
        assert_eq!(kind("days", numbered(40)), Kind::Numeric);
        assert_eq!(kind("stars", ["1", "5", "3"]), Kind::Categorical);
        assert_eq!(kind("item_id", numbered(40)), Kind::Categorical);
        assert_eq!(kind("item_id", numbered(400)), Kind::Unique);
        assert_eq!(kind("time_ms", numbered(400)), Kind::Time);
        assert_eq!(kind("tags", ["a,b", "a", "c"]), Kind::List { separator: ',', longest: 2 });
        assert_eq!(kind("history", ["3|4|5", "", "7"]), Kind::List { separator: '|', longest: 3 });
        assert_eq!(kind("range", ["(1,5]", "(5,9]", "(1,5]"]), Kind::Categorical);
        assert_eq!(kind("place", ["1.5,2.5", "3.5,4.5"]), Kind::Categorical);
    }
}
