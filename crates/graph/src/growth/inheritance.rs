//! What the tensors of a graph take from those of a graph with fewer inputs, and what of them starts at zero.

use super::{Added, Growth, Place, Places};
use crate::graph::{Graph, Kind};
use crate::op::Lookup;
use crate::param::{Block, ParamSpec, Parameters};
use manygate_core::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a graph goes on from one with fewer inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inheritance {
    /// The parameter and state tensors, by name.
    pub tensors: Vec<Inherited>,
    /// Tables that it has not, whose rows start at zero: their vectors are added up without a weight.
    pub zero_tables: BTreeSet<String>,
}

/// A tensor and what it takes from that of the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct Inherited {
    /// Its name.
    pub name: String,
    /// Its shape in the other graph; none where only this one has it.
    pub shape: Option<Vec<usize>>,
    rows: Vec<From>,
    columns: Vec<From>,
}

/// Where a row or a column comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// The one with this number.
    Old(usize),
    /// It is new and keeps its initial values.
    Initial,
    /// It is new and starts at zero.
    Zero,
}

impl Inheritance {
    /// For a graph declared with more inputs than another one, those of `added`: `(graph, other)`. All pairs, for
    /// training, for evaluation, of each stage, declare the same tensors; what does not follow from one may follow
    /// from another.
    ///
    /// # Errors
    /// When a tensor is no longer there, or it does not follow which of its rows and columns are new.
    pub fn new(graphs: &[(&Graph, &Graph)], added: &Added) -> Result<Inheritance> {
        let mut tensors: BTreeMap<&str, Result<Inherited>> = BTreeMap::new();
        let mut all = Inheritance::default();
        for &(graph, old) in graphs {
            check_declared(graph, old)?;
            let growth = Growth::found(graph, old, added);
            for (name, found) in growth.inherited(old) {
                if !matches!(tensors.get(name), Some(Ok(_))) {
                    tensors.insert(name, found);
                }
            }
            let is_old = |name: &str| old.tables.iter().any(|table| table.name == name);
            let zero = growth.added_up().filter(|name| !is_old(name));
            all.zero_tables.extend(zero.map(str::to_owned));
        }
        all.tensors = tensors.into_values().collect::<Result<_>>()?;
        Ok(all)
    }

    /// Overwrites initial values, of parameters or of state, with those of `old`, and with zeros where what is new
    /// must have no effect.
    ///
    /// # Errors
    /// When either is not laid out as the graph that this is for.
    pub fn hand_on(&self, old: &Parameters, to: &mut Parameters) -> Result<()> {
        let layout = Arc::clone(to.layout());
        for (block, range) in layout.blocks() {
            let Some(inherited) = self.tensors.iter().find(|tensor| tensor.name == block.name) else {
                continue;
            };
            let values = if inherited.shape.is_some() { old.get(&block.name)? } else { &[] };
            if inherited.lengths() != (values.len(), range.len()) {
                return Err(Error::graph(&block.name, "has another length than in the graph"));
            }
            inherited.fill(values, &mut to.values[range]);
        }
        Ok(())
    }
}

impl Inherited {
    /// Values of the other tensor and of this one.
    fn lengths(&self) -> (usize, usize) {
        let kept = |places: &[From]| places.iter().filter(|from| matches!(from, From::Old(_))).count();
        (kept(&self.rows) * kept(&self.columns), self.rows.len() * self.columns.len())
    }

    fn fill(&self, old: &[f32], values: &mut [f32]) {
        let width = self.columns.iter().filter(|from| matches!(from, From::Old(_))).count();
        for (row, to) in self.rows.iter().zip(values.chunks_mut(self.columns.len().max(1))) {
            for (column, to) in self.columns.iter().zip(to) {
                match (row, column) {
                    (From::Old(r), From::Old(c)) => *to = old[r * width + c],
                    (From::Zero, _) | (_, From::Zero) => *to = 0.0,
                    _ => {}
                }
            }
        }
    }
}

/// Marks what blocks of `spec` have in the same size in the graph before, and the rows of those that it has not.
pub(super) fn keep_blocks(spec: &ParamSpec, old: &[ParamSpec], to: &mut Places) {
    let mut from = 0;
    for block in &spec.blocks {
        let rows = &mut to.rows[from..from + block.rows()];
        from += rows.len();
        let known = |new: bool| move |place: &mut Place| place.new = Some(new);
        match find(old, &block.name) {
            None => rows.iter_mut().for_each(known(true)),
            Some(other) => {
                if other.rows() == rows.len() {
                    rows.iter_mut().for_each(known(false));
                }
                if other.cols() == spec.cols {
                    to.columns.iter_mut().for_each(known(false));
                }
            }
        }
    }
}

fn find<'g>(specs: &'g [ParamSpec], name: &str) -> Option<&'g Block> {
    specs.iter().flat_map(|spec| &spec.blocks).find(|block| block.name == name)
}

/// # Errors
/// When a tensor or a table is missing, or a table has another size.
fn check_declared(graph: &Graph, old: &Graph) -> Result<()> {
    for block in [&old.params, &old.states].into_iter().flatten().flat_map(|spec| &spec.blocks) {
        if find(&graph.params, &block.name).or_else(|| find(&graph.states, &block.name)).is_none() {
            return Err(Error::graph(&block.name, "the model has no such tensor with the added inputs"));
        }
    }
    for table in &old.tables {
        let other = graph.tables.iter().find(|other| other.name == table.name);
        if other.map(|other| (other.rows, other.dim)) != Some((table.rows, table.dim)) {
            let now = other.map_or("none".to_owned(), |other| format!("[{}, {}]", other.rows, other.dim));
            let message =
                format!("the table is [{}, {}], and {now} with the added inputs", table.rows, table.dim);
            return Err(Error::graph(&table.name, message));
        }
    }
    Ok(())
}

impl<'a> Growth<'a> {
    /// The tensors, by name.
    fn inherited(&self, old: &Graph) -> Vec<(&'a str, Result<Inherited>)> {
        let mut tensors = Vec::new();
        for (of, places) in self.graph.nodes.iter().zip(&self.values) {
            let (spec, old) = match of.kind {
                Kind::Param(p) => (&self.graph.params[p], &old.params),
                Kind::State(s) => (&self.graph.states[s], &old.states),
                Kind::Op { .. } | Kind::Columns { .. } => continue,
            };
            let mut from = 0;
            for block in &spec.blocks {
                let rows = &places.rows[from..from + block.rows()];
                from += rows.len();
                let found = match find(old, &block.name) {
                    Some(other) => inherited(block, other, rows, &places.columns),
                    None => Ok(begun(block, rows, &places.columns)),
                };
                tensors.push((block.name.as_str(), found));
            }
        }
        tensors
    }

    /// Tables whose rows have an effect by themselves.
    fn added_up(&self) -> impl Iterator<Item = &'a str> {
        let lookups = self.graph.nodes.iter().zip(&self.values).flat_map(|(node, places)| {
            let lookups = if let Kind::Op { op, .. } = &node.kind { op.lookups() } else { &[] };
            let zero = |at: &&Lookup| {
                places.columns[at.column..at.column + at.dim].iter().any(|p| p.starts_at_zero())
            };
            lookups.iter().filter(zero)
        });
        lookups.map(|lookup| self.graph.tables[lookup.table].name.as_str())
    }
}

/// A tensor that is new as a whole: what reads an input that is new starts at zero.
fn begun(block: &Block, rows: &[Place], columns: &[Place]) -> Inherited {
    let start = |place: &Place| if place.starts_at_zero() { From::Zero } else { From::Initial };
    let starts = |places: &[Place]| places.iter().map(start).collect();
    Inherited { name: block.name.clone(), shape: None, rows: starts(rows), columns: starts(columns) }
}

/// A tensor of the shape that it had takes it as it is; another one by rows and columns.
fn inherited(block: &Block, other: &Block, rows: &[Place], columns: &[Place]) -> Result<Inherited> {
    let same = block.shape == other.shape;
    let numbered = |places: &[Place], kept: usize| -> Option<Vec<From>> {
        let mut old = 0;
        let of = |place: &Place| {
            Some(match (place.new.filter(|_| !same).or(same.then_some(false))?, place.zero) {
                (false, _) => {
                    old += 1;
                    From::Old(old - 1)
                }
                (true, true) => From::Zero,
                (true, false) => From::Initial,
            })
        };
        let all: Option<Vec<From>> = places.iter().map(of).collect();
        all.filter(|_| old == kept)
    };
    match (numbered(rows, other.rows()), numbered(columns, other.cols())) {
        (Some(rows), Some(columns)) => {
            Ok(Inherited { name: block.name.clone(), shape: Some(other.shape.clone()), rows, columns })
        }
        _ => Err(Error::graph(
            &block.name,
            format!(
                "is {:?}, and {:?} with the added inputs, and it does not follow from the model which of its values are \
                 new: train this model from the beginning",
                other.shape, block.shape
            ),
        )),
    }
}
