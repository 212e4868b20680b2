//! A batch: the encoded rows that a plan runs over, column by column.

use crate::error::{Error, Result};
use std::ops::Range;

/// A list of ids a row: tags, a behaviour sequence. Row `r` holds `ids[offsets[r] .. offsets[r + 1]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bag {
    /// `[rows + 1]`, rising from 0.
    pub offsets: Vec<u32>,
    /// All ids, row after row.
    pub ids: Vec<u32>,
}

impl Bag {
    /// The ids of row `r`.
    pub fn row(&self, r: usize) -> &[u32] {
        &self.ids[self.offsets[r] as usize..self.offsets[r + 1] as usize]
    }

    fn clear(&mut self) {
        self.offsets.clear();
        self.offsets.push(0);
        self.ids.clear();
    }

    fn truncate(&mut self, rows: usize) {
        if let Some(&end) = self.offsets.get(rows) {
            self.offsets.truncate(rows + 1);
            self.ids.truncate(end as usize);
        }
    }
}

/// Encoded rows. A whole data set is one large batch, from which training gathers small ones.
///
/// The order of fields, bags, numbers and tasks is that of the schema which encoded it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Number of rows.
    pub rows: usize,
    /// One id a row and categorical field: `[field][row]`. Row 0 of a table is the unknown row.
    pub ids: Vec<Vec<u32>>,
    /// Several ids a row and multi-valued field or sequence: `[bag]`.
    pub bags: Vec<Bag>,
    /// Numbers, row-major `[rows, dense_width]`.
    pub dense: Vec<f32>,
    /// Numbers a row.
    pub dense_width: usize,
    /// Scenario of each row, from 0: `[rows]`, or empty where the data has no scenarios.
    pub scenario: Vec<u32>,
    /// Labels `[task][row]`; empty when predicting.
    pub labels: Vec<Vec<f32>>,
}

impl Batch {
    /// An empty batch with the columns of `like`.
    pub fn empty_like(like: &Batch) -> Batch {
        Batch {
            rows: 0,
            ids: vec![Vec::new(); like.ids.len()],
            bags: like.bags.iter().map(|_| Bag { offsets: vec![0], ids: Vec::new() }).collect(),
            dense: Vec::new(),
            dense_width: like.dense_width,
            scenario: Vec::new(),
            labels: vec![Vec::new(); like.labels.len()],
        }
    }

    /// Drops all rows and keeps the columns and their memory: what is filled again and again allocates no more once it
    /// has been as large.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.bags.iter_mut().for_each(Bag::clear);
        self.ids.iter_mut().for_each(Vec::clear);
        self.dense.clear();
        self.scenario.clear();
        self.labels.iter_mut().for_each(Vec::clear);
    }

    /// Drops the rows from `rows` on, and what a column has beyond them.
    pub fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
        self.ids.iter_mut().for_each(|column| column.truncate(rows));
        self.bags.iter_mut().for_each(|bag| bag.truncate(rows));
        self.dense.truncate(rows.saturating_mul(self.dense_width));
        self.scenario.truncate(rows);
        self.labels.iter_mut().for_each(|column| column.truncate(rows));
    }

    /// Whether both have as many columns of each kind.
    pub fn has_columns_of(&self, other: &Batch) -> bool {
        let counts = |b: &Batch| (b.ids.len(), b.bags.len(), b.dense_width, b.labels.len());
        counts(self) == counts(other)
    }

    /// Replaces the contents with `rows` of `source`, in that order. Nothing is allocated once the buffers have
    /// grown to the size that the batches need.
    ///
    /// # Panics
    /// When a row number is out of range or the two batches have different columns.
    pub fn gather(&mut self, source: &Batch, rows: &[u32]) {
        assert!(self.has_columns_of(source), "batches of different schemas");
        self.rows = rows.len();
        for (to, from) in self.ids.iter_mut().zip(&source.ids) {
            pick(to, from, rows);
        }
        for (to, from) in self.bags.iter_mut().zip(&source.bags) {
            to.clear();
            for &r in rows {
                to.ids.extend_from_slice(from.row(r as usize));
                to.offsets.push(to.ids.len() as u32);
            }
        }
        self.dense.clear();
        for &r in rows {
            let start = r as usize * source.dense_width;
            self.dense.extend_from_slice(&source.dense[start..start + source.dense_width]);
        }
        if source.scenario.is_empty() {
            self.scenario.clear();
        } else {
            pick(&mut self.scenario, &source.scenario, rows);
        }
        for (to, from) in self.labels.iter_mut().zip(&source.labels) {
            pick(to, from, rows);
        }
    }

    /// Makes room for `rows` rows whose bags are all as long as the longest of `source`, so that no later
    /// [`gather`](Batch::gather) of that many rows allocates.
    pub fn reserve_for(&mut self, source: &Batch, rows: usize) {
        for to in &mut self.ids {
            to.reserve(rows);
        }
        for (to, from) in self.bags.iter_mut().zip(&source.bags) {
            let longest = from.offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
            to.offsets.reserve(rows + 1);
            to.ids.reserve(rows * longest);
        }
        self.dense.reserve(rows * self.dense_width);
        self.scenario.reserve(rows);
        for to in &mut self.labels {
            to.reserve(rows);
        }
    }

    /// The rows of a scenario, in a batch whose rows stand in the order of their scenarios.
    pub fn rows_of_scenario(&self, scenario: usize) -> Range<usize> {
        let start = |of: usize| self.scenario.partition_point(|&s| (s as usize) < of);
        start(scenario)..start(scenario + 1)
    }

    /// Checks that every column has `rows` entries and that bag offsets rise within bounds.
    ///
    /// # Errors
    /// [`Error::Graph`] that names the first column that does not fit.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String, got: usize, want: usize| {
            Err(Error::graph("batch", format!("{what} has {got} values, {want} are needed")))
        };
        for (f, column) in self.ids.iter().enumerate() {
            if column.len() != self.rows {
                return wrong(format!("id column {f}"), column.len(), self.rows);
            }
        }
        for (b, bag) in self.bags.iter().enumerate() {
            let ends = self.rows.saturating_add(1);
            if bag.offsets.len() != ends {
                return wrong(format!("offsets of bag {b}"), bag.offsets.len(), ends);
            }
            let rising = bag.offsets.windows(2).all(|w| w[0] <= w[1]) && bag.offsets[0] == 0;
            if !rising || bag.offsets[self.rows] as usize != bag.ids.len() {
                return Err(Error::graph(
                    "batch",
                    format!("offsets of bag {b} do not rise from 0 to its ids"),
                ));
            }
        }
        let numbers = self.rows.saturating_mul(self.dense_width);
        if self.dense.len() != numbers {
            return wrong("the dense matrix".into(), self.dense.len(), numbers);
        }
        if !self.scenario.is_empty() && self.scenario.len() != self.rows {
            return wrong("the scenario column".into(), self.scenario.len(), self.rows);
        }
        for (t, column) in self.labels.iter().enumerate() {
            if column.len() != self.rows {
                return wrong(format!("label column {t}"), column.len(), self.rows);
            }
        }
        Ok(())
    }
}

fn pick<T: Copy>(to: &mut Vec<T>, from: &[T], rows: &[u32]) {
    to.clear();
    to.extend(rows.iter().map(|&r| from[r as usize]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_rows() -> Batch {
        Batch {
            rows: 3,
            ids: vec![vec![1, 2, 3]],
            bags: vec![Bag { offsets: vec![0, 2, 2, 3], ids: vec![7, 8, 9] }],
            dense: vec![0.1, 0.2, 0.3],
            dense_width: 1,
            scenario: vec![0, 1, 0],
            labels: vec![vec![1.0, 0.0, 1.0]],
        }
    }

    #[test]
    fn gather_picks_rows_in_order() {
        let all = three_rows();
        all.validate().unwrap();
        let mut some = Batch::empty_like(&all);
        some.gather(&all, &[2, 0]);
        some.validate().unwrap();
        assert_eq!(some.ids, [[3, 1]]);
        assert_eq!(some.bags[0].row(0), [9]);
        assert_eq!(some.bags[0].row(1), [7, 8]);
        assert_eq!(some.dense, [0.3, 0.1]);
        assert_eq!(some.scenario, [0, 0]);
        assert_eq!(some.labels, [[1.0, 1.0]]);
    }

    #[test]
    fn rows_are_dropped_in_every_column() {
        let (all, mut batch) = (three_rows(), three_rows());
        // The start of a fourth row, whose cells could not all be used.
        batch.ids[0].push(9);
        batch.bags[0].ids.push(9);
        batch.truncate(3);
        assert_eq!(batch, all);
        batch.truncate(1);
        let mut first = Batch::empty_like(&all);
        first.gather(&all, &[0]);
        assert_eq!(batch, first);
        batch.clear();
        assert_eq!(batch, Batch::empty_like(&all));
    }

    #[test]
    fn sizes_that_overflow_are_errors() {
        let told = |batch: Batch| batch.validate().unwrap_err().to_string();
        let bags = vec![Bag { offsets: vec![0], ids: vec![] }];
        assert!(
            told(Batch { rows: usize::MAX, bags, ..Batch::default() }).contains("offsets of bag 0 has 1")
        );
        let wide = Batch { rows: 3, dense_width: usize::MAX, ..Batch::default() };
        assert!(told(wide).contains("the dense matrix has 0 values"));
    }

    #[test]
    fn a_short_column_is_named() {
        let mut batch = three_rows();
        batch.ids[0].pop();
        assert!(batch.validate().unwrap_err().to_string().contains("id column 0 has 2 values, 3 are needed"));
    }
}
