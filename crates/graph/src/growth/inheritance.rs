//! What the tensors of a graph take from those of a graph with fewer inputs, and what of them starts at zero.

use super::{Added, Growth, Place, Places};
use crate::graph::{Graph, Kind};
use crate::param::{Block, ParamSpec, Parameters};
use manygate_core::{Error, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How a graph goes on from one with fewer inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inheritance {
    /// By name of a parameter or state tensor that the other graph has too.
    pub tensors: Vec<Inherited>,
    /// Tables that the other graph has too; they are the same.
    pub tables: Vec<String>,
    /// Tables that it has not, whose rows start at zero: their vectors are added up without a weight.
    pub zero_tables: BTreeSet<String>,
}

/// A tensor and what it takes from that of the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct Inherited {
    /// Its name.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
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
    /// For a graph declared with more inputs than another one, `(graph, other)`, and those of `added`. With the graphs for
    /// training and for evaluation, what the one does not tell may follow from the other.
    ///
    /// # Errors
    /// When a tensor is no longer there, or it does not follow which of its rows and columns are new.
    pub fn new(graphs: &[(&Graph, &Graph)], added: &Added) -> Result<Inheritance> {
        let mut found: Option<Result<Inheritance>> = None;
        for &(graph, old) in graphs {
            let of_graph = inherit(graph, old, added);
            found = Some(match (found, of_graph) {
                (Some(Ok(mut one)), Ok(other)) => {
                    one.zero_tables.extend(other.zero_tables);
                    Ok(one)
                }
                (Some(Ok(one)), Err(_)) | (None | Some(Err(_)), Ok(one)) => Ok(one),
                (Some(Err(error)), Err(_)) | (None, Err(error)) => Err(error),
            });
        }
        found.unwrap_or_else(|| Ok(Inheritance::default()))
    }
}

impl Inheritance {
    /// Overwrites initial values, of parameters or of state, with those of `old`, and with zeros where what is new must have
    /// no effect.
    ///
    /// # Errors
    /// When either is not laid out as the graph that this is for.
    pub fn hand_on(&self, old: &Parameters, to: &mut Parameters) -> Result<()> {
        let layout = Arc::clone(to.layout());
        for (block, range) in layout.blocks() {
            let Some(inherited) = self.tensors.iter().find(|tensor| tensor.name == block.name) else { continue };
            let values = old.get(&block.name)?;
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

fn inherit(graph: &Graph, old: &Graph, added: &Added) -> Result<Inheritance> {
    for block in [&old.params, &old.states].into_iter().flatten().flat_map(|spec| &spec.blocks) {
        if find(&graph.params, &block.name).or_else(|| find(&graph.states, &block.name)).is_none() {
            return Err(Error::graph(&block.name, "the model has no such tensor with the added inputs"));
        }
    }
    let growth = Growth::found(graph, old, added);
    let mut tensors = Vec::new();
    for (node, of) in graph.nodes.iter().enumerate() {
        let (spec, old) = match of.kind {
            Kind::Param(p) => (&graph.params[p], &old.params),
            Kind::State(s) => (&graph.states[s], &old.states),
            _ => continue,
        };
        let (places, mut from) = (growth.places(node), 0);
        for block in &spec.blocks {
            let rows = &places.rows[from..from + block.rows()];
            from += rows.len();
            if let Some(other) = find(old, &block.name) {
                tensors.push(inherited(block, other, rows, &places.columns)?);
            }
        }
    }
    let is_old = |name: &str| old.tables.iter().any(|table| table.name == name);
    for table in &old.tables {
        match graph.tables.iter().find(|other| other.name == table.name) {
            Some(other) if (other.rows, other.dim) == (table.rows, table.dim) => {}
            other => {
                let shape = other.map_or("is not there".to_owned(), |t| format!("is [{}, {}]", t.rows, t.dim));
                let message = format!("the table is [{}, {}] and with the added inputs {shape}", table.rows, table.dim);
                return Err(Error::graph(&table.name, message));
            }
        }
    }
    let (tables, new): (Vec<_>, Vec<_>) = graph.tables.iter().map(|t| t.name.clone()).partition(|name| is_old(name));
    let zero = growth.added_up();
    let zero_tables = new.into_iter().filter(|name| zero.iter().any(|&t| graph.tables[t].name == *name)).collect();
    Ok(Inheritance { tensors, tables, zero_tables })
}

impl Growth<'_> {
    /// Tables whose rows have an effect by themselves.
    fn added_up(&self) -> Vec<usize> {
        let mut tables = Vec::new();
        for (node, places) in self.graph.nodes.iter().zip(&self.values) {
            let Kind::Op { op, .. } = &node.kind else { continue };
                        let lookups = op.lookups().iter();
            let lookups = lookups.filter(|at| places.columns[at.column..at.column + at.dim].iter().any(|place| place.starts_at_zero()));
            tables.extend(lookups.map(|lookup| lookup.table));
        }
        tables
    }
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
            Ok(Inherited { name: block.name.clone(), shape: other.shape.clone(), rows, columns })
        }
        _ => Err(Error::graph(
            &block.name,
            format!(
                "has shape {:?} in the old run and {:?} with the added inputs, and it does not follow from the model \
                 which of its values are new: train this model from the beginning",
                other.shape, block.shape
            ),
        )),
    }
}
