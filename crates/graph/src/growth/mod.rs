//! What becomes of a graph that is declared again with more inputs: which rows and columns of its tensors are new.
//!
//! A field that is added widens the trunk, and with it every matrix that reads it, wherever its columns stand: at the
//! end, or in the middle of what a layer reads side by side. No model and no layer says where. It follows from what
//! is known, passed from op to op until nothing more follows ([`Op::grow`](crate::Op::grow)):
//!
//! * a look-up knows which of its columns belong to an added input;
//! * a tensor, or a value of the same name, that is as wide as in the graph before is the same as there;
//! * an op knows that the columns of its weight are those of its input.
//!
//! The same pass finds what must start at zero, so that what is new has no effect ([`Inheritance`]): the weights that
//! multiply it, or, where its vector is added up without a weight, the table that it is looked up in.
//!
//! A model then predicts what it did, bit for bit: an element of a product is one chain of multiply-adds, in which a
//! term of 0 changes nothing, wherever it stands. Some formulas do not allow it:
//!
//! | what reads the input | predictions | why |
//! |---|---|---|
//! | attention among fields | move | a softmax weighs one vector more |
//! | a sum of products of vectors, of a field whose table was there | move | only vectors of 0 have no effect |
//! | the same behind a map with a bias | move | a vector of 0 does not stay 0 |
//! | a cross layer with a vector, columns behind the added ones | are rounded differently | w · x is summed in lanes |
//! | weights of a sample's own, row-major | are rounded differently | a row of them times x is summed in lanes |
//! | products of pairs of fields | are rounded differently | the order of a pair's sum depends on its place |

mod inheritance;

pub use inheritance::{Inheritance, Inherited};

use crate::graph::{Graph, Kind, Value};
use crate::shape::{Shape, Space};

/// Which inputs of a batch the graph before did not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// By field.
    pub fields: Vec<bool>,
    /// By list.
    pub bags: Vec<bool>,
    /// By number.
    pub dense: Vec<bool>,
}

impl Added {
    /// Whether a batch has the same inputs as before.
    pub fn is_empty(&self) -> bool {
        ![&self.fields, &self.bags, &self.dense].into_iter().any(|added| added.contains(&true))
    }
}

/// Rows or columns of a value that an op reads or makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Columns of input `i`.
    Columns(usize),
    /// Rows of input `i`, which exists once.
    Rows(usize),
    /// Columns of the output.
    OutColumns,
    /// Rows of the output, which exists once.
    OutRows,
}

/// What is known of a row or a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Whether the graph before did not have it.
    pub(crate) new: Option<bool>,
    /// Whether its values have no effect if they are 0, and must have none if it is new.
    pub(crate) zero: bool,
}

impl Place {
    pub(crate) fn is_new(self) -> bool {
        self.new == Some(true)
    }

    pub(crate) fn starts_at_zero(self) -> bool {
        self.is_new() && self.zero
    }
}

/// Positions that follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) axis: Axis,
    pub(crate) from: usize,
    pub(crate) len: usize,
}

impl Span {
    pub(crate) fn new(axis: Axis, from: usize, len: usize) -> Span {
        Span { axis, from, len }
    }
}

/// Rows and columns of a value; one with rows in the batch has columns alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    pub(crate) rows: Vec<Place>,
    pub(crate) columns: Vec<Place>,
}

/// What is known so far, as [`Op::grow`](crate::Op::grow) sees it: the rows and columns of the values of one op. What
/// is known once stays.
#[derive(Debug)]
pub struct Growth<'a> {
    graph: &'a Graph,
    added: &'a Added,
    values: Vec<Places>,
    /// Roots of the op's inputs and of its output, and the first column there.
    roots: Vec<(Value, usize)>,
    moved: bool,
}

impl<'a> Growth<'a> {
    /// Everything that follows, for `graph` beside `old`.
    pub(crate) fn found(graph: &'a Graph, old: &Graph, added: &'a Added) -> Growth<'a> {
        let places = |shape: Shape| Places {
            rows: vec![Place::default(); if shape.space == Space::Once { shape.rows } else { 0 }],
            columns: vec![Place::default(); shape.cols],
        };
        let values = graph.nodes.iter().map(|node| places(node.shape)).collect();
        let mut growth = Growth { graph, added, values, roots: Vec::new(), moved: false };
        growth.keep_what_is_as_wide(old);
        loop {
            growth.moved = false;
            let nodes = 0..graph.nodes.len();
            nodes.clone().chain(nodes.rev()).for_each(|node| growth.grow(node));
            if !growth.moved {
                return growth;
            }
        }
    }

    fn keep_what_is_as_wide(&mut self, old: &Graph) {
        let keep = |places: &mut [Place]| places.iter_mut().for_each(|place| place.new = Some(false));
        for (node, to) in self.graph.nodes.iter().zip(&mut self.values) {
            match node.kind {
                Kind::Param(p) => inheritance::keep_blocks(&self.graph.params[p], &old.params, to),
                Kind::State(s) => inheritance::keep_blocks(&self.graph.states[s], &old.states, to),
                Kind::Op { .. } => {
                    let mut alike = old.nodes.iter().filter(|other| other.name == node.name);
                    // A name that several ops have says nothing.
                    let (Some(other), None) = (alike.next(), alike.next()) else { continue };
                    if other.shape.rows == node.shape.rows {
                        keep(&mut to.rows);
                    }
                    if other.shape.cols == node.shape.cols {
                        keep(&mut to.columns);
                    }
                }
                Kind::Columns { .. } => {}
            }
        }
        for (&units, &before) in self.graph.exchangeable.iter().zip(&old.exchangeable) {
            let ((root, from), kept) = (self.graph.root(units), old.cols(before));
            for at in 0..self.graph.cols(units) {
                self.values[root.index()].columns[from + at].new = Some(at >= kept);
            }
        }
    }

    fn grow(&mut self, node: usize) {
        let graph = self.graph;
        let Kind::Op { op, inputs } = &graph.nodes[node].kind else { return };
        self.roots.clear();
        self.roots.extend(inputs.iter().map(|&input| graph.root(input)));
        self.roots.push((Value(node as u32), 0));
        let shapes: Vec<Shape> = inputs.iter().map(|&input| graph.shape(input)).collect();
        op.grow(&shapes, self);
    }

    fn place(&mut self, axis: Axis, at: usize) -> &mut Place {
        let output = self.roots.len() - 1;
        let (input, rows) = match axis {
            Axis::Columns(i) => (i, false),
            Axis::Rows(i) => (i, true),
            Axis::OutColumns => (output, false),
            Axis::OutRows => (output, true),
        };
        let (root, column) = self.roots[input];
        let places = &mut self.values[root.index()];
        if rows { &mut places.rows[at] } else { &mut places.columns[column + at] }
    }

    /// Inputs that were added.
    pub fn added(&self) -> &'a Added {
        self.added
    }

    /// Whether position `at` is new, where that is known.
    pub fn is_new(&mut self, axis: Axis, at: usize) -> Option<bool> {
        self.place(axis, at).new
    }

    /// Says whether position `at` is new; what is known already stays.
    pub fn mark(&mut self, axis: Axis, at: usize, new: Option<bool>) {
        let place = self.place(axis, at);
        if place.new.is_none() && new.is_some() {
            place.new = new;
            self.moved = true;
        }
    }

    /// `len` positions from `to` on are new where those from `from` on are.
    pub fn follow(&mut self, to: (Axis, usize), from: (Axis, usize), len: usize) {
        for at in 0..len {
            let new = self.is_new(from.0, from.1 + at);
            self.mark(to.0, to.1 + at, new);
        }
    }

    /// `len` positions from `a` on are the same as those from `b` on.
    pub fn tie(&mut self, a: (Axis, usize), b: (Axis, usize), len: usize) {
        self.follow(a, b, len);
        self.follow(b, a, len);
    }

    /// Every column of the output is that of each of these inputs.
    pub fn same_columns(&mut self, shapes: &[Shape], inputs: impl IntoIterator<Item = usize>) {
        for i in inputs {
            self.tie((Axis::Columns(i), 0), (Axis::OutColumns, 0), shapes[i].cols);
        }
    }

    /// A vector for each of several parts, of `len` values, is in input `i` as `[parts · len, 1]` or `[parts, len]`:
    /// its values stand for those from `to` on.
    pub fn vectors(&mut self, shape: Shape, i: usize, to: (Axis, usize), len: usize) {
        if shape.cols == len && shape.rows * shape.cols != shape.rows {
            return self.tie((Axis::Columns(i), 0), to, len);
        }
        for part in 0..shape.rows.checked_div(len).unwrap_or(0) {
            self.tie((Axis::Rows(i), part * len), to, len);
        }
    }

    /// The values of `flat` that stand at `place(r, c)` are a matrix with these rows and columns: one is new where
    /// its row or its column is, and starts at zero where `zero` says so of its row and its column.
    pub(crate) fn matrix(
        &mut self,
        flat: Axis,
        place: impl Fn(usize, usize) -> usize,
        rows: Span,
        columns: Span,
        zero: impl Fn(Place, Place) -> bool,
    ) {
        for r in 0..rows.len {
            let row = *self.place(rows.axis, rows.from + r);
            for c in 0..columns.len {
                let column = *self.place(columns.axis, columns.from + c);
                let new = row.new.zip(column.new).map(|(row, column)| row || column);
                self.mark(flat, place(r, c), new);
                if zero(row, column) {
                    self.zero_at(flat, place(r, c));
                }
            }
        }
    }

    /// `len` positions from `at` on have an effect unless they are 0.
    pub fn zero(&mut self, at: (Axis, usize), len: usize) {
        (0..len).for_each(|i| self.zero_at(at.0, at.1 + i));
    }

    fn zero_at(&mut self, axis: Axis, at: usize) {
        let place = self.place(axis, at);
        if !place.zero {
            place.zero = true;
            self.moved = true;
        }
    }

    /// Where positions from `product` on must be 0, those from `factor` on are: that is enough.
    pub fn vanish(&mut self, product: (Axis, usize), factor: (Axis, usize), len: usize) {
        for at in 0..len {
            if self.place(product.0, product.1 + at).zero {
                self.zero_at(factor.0, factor.1 + at);
            }
        }
    }

    /// One position stands for `len` others: it is new, or starts at zero, where all of them are or do.
    pub fn gather(&mut self, one: (Axis, usize), parts: (Axis, usize), len: usize) {
        let (mut new, mut zero) = (Some(true), true);
        for at in parts.1..parts.1 + len {
            let part = *self.place(parts.0, at);
            zero &= part.starts_at_zero();
            new = match (new, part.new) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), part) => part,
                (None, _) => None,
            };
        }
        self.mark(one.0, one.1, new);
        if zero {
            self.zero_at(one.0, one.1);
        }
    }

    /// Groups of `from` columns of input 0 become groups of `to` columns of the output: a group is new where all that
    /// it is made of is.
    pub fn by_groups(&mut self, groups: usize, from: usize, to: usize) {
        for group in 0..groups {
            self.gather((Axis::OutColumns, group * to), (Axis::Columns(0), group * from), from);
            (1..to).for_each(|c| {
                self.follow((Axis::OutColumns, group * to + c), (Axis::OutColumns, group * to), 1)
            });
        }
    }
}
