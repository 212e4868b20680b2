//! Where a value lives and how wide it is.

use std::fmt;

/// The row space of a value: what there is one row of.
///
/// `Field`, `Task` and `Distinct` join with the models that need them; an op states its spaces in
/// [`Op::output`](crate::Op::output), and nothing else in the graph cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// One row a sample of the batch; the number of rows is symbolic.
    Batch,
    /// One row an id of the list with this number in the batch; the rows of a sample stand together.
    Position(usize),
    /// One value for the whole step: parameters, state, statistics of the batch. A matrix of fixed shape.
    Once,
}

/// The shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What there is one row of.
    pub space: Space,
    /// Rows of a [`Space::Once`] value; 0 in the other spaces, where rows are symbolic.
    pub rows: usize,
    /// Values a row.
    pub cols: usize,
}

impl Shape {
    /// `cols` values a sample.
    pub fn batch(cols: usize) -> Shape {
        Shape { space: Space::Batch, rows: 0, cols }
    }

    /// `cols` values an id of list `bag`.
    pub fn position(bag: usize, cols: usize) -> Shape {
        Shape { space: Space::Position(bag), rows: 0, cols }
    }

    /// The same rows, with `cols` values each.
    pub fn with_cols(self, cols: usize) -> Shape {
        Shape { cols, ..self }
    }

    /// A matrix `[rows, cols]` that exists once.
    pub fn once(rows: usize, cols: usize) -> Shape {
        Shape { space: Space::Once, rows, cols }
    }

    /// The columns of a value with rows, the rows of a [`Space::Once`] matrix: in such steps dependencies are followed
    /// ([`Op::reach`](crate::Op::reach)), because parameters are stacked by rows.
    pub fn channels(&self) -> usize {
        if self.space == Space::Once { self.rows } else { self.cols }
    }

    /// Values in a [`Space::Once`] matrix.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether a [`Space::Once`] matrix has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.space {
            Space::Batch => write!(f, "[batch, {}]", self.cols),
            Space::Position(bag) => write!(f, "[ids of list {bag}, {}]", self.cols),
            Space::Once => write!(f, "[{}, {}]", self.rows, self.cols),
        }
    }
}
