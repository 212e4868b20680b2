//! What a part of the loss depends on, of what learns: followed back from its ops, channel by channel.
//!
//! It is structure alone. A gradient that is zero for the numbers of a batch (units that are off, a scenario without
//! rows) is reached all the same; what is not reached gets none, whatever the numbers.

use super::schedule::Schedule;
use super::{Plan, PlanOptions, op_of};
use crate::graph::{Graph, Kind};
use crate::param::Layout;
use crate::shape::{Shape, Space};
use std::ops::Range;

/// What gets a gradient from a part of the loss, see [`Plan::reached_by`]. Frozen tensors and tables do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    tensors: Vec<bool>,
    ranges: Vec<Range<usize>>,
    tables: Vec<bool>,
}

impl Reached {
    /// By named tensor, in the order of [`Layout::blocks`]. A tensor is reached as a whole or not at all.
    pub fn tensors(&self) -> &[bool] {
        &self.tensors
    }

    /// The reached tensors as ranges of the flat parameters, rising and apart.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// By table, in the order of [`Plan::tables`].
    pub fn tables(&self) -> &[bool] {
        &self.tables
    }
}

impl Plan {
    /// What gets a gradient from part number `loss` of the loss, be it 0 for the numbers of a batch: what several parts
    /// reach is shared, what one reaches is its own. An evaluation plan reaches nothing.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn reached_by(&self, loss: usize) -> &Reached {
        &self.reached[loss]
    }

    /// Whether part number `loss` of the loss gives a gradient to the parameter tensor or table `name`.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn reaches(&self, loss: usize, name: &str) -> bool {
        let reached = &self.reached[loss];
        if let Some(table) = self.graph.tables.iter().position(|table| table.name == name) {
            return reached.tables[table];
        }
        let mut blocks = self.layout.blocks().zip(&reached.tensors);
        blocks.any(|((block, _), &is_reached)| is_reached && block.name == name)
    }

    /// Whether the parameter tensor or table `name` learns: some part of the loss reaches it, and it is not frozen. What
    /// no gradient reaches must stay as it is, under weight decay too. Nothing learns in an evaluation plan.
    pub fn learns(&self, name: &str) -> bool {
        (0..self.reached.len()).any(|loss| self.reaches(loss, name))
    }
}

/// By part of the loss.
pub(super) fn reached(
    graph: &Graph,
    options: &PlanOptions,
    schedule: &Schedule,
    layout: &Layout,
) -> Vec<Reached> {
    let of_part = |part| {
        let channels = reached_channels(graph, schedule, part);
        let tensors = reached_tensors(graph, options, &channels);
        let ranges = ranges_of(layout, &tensors);
        Reached { tensors, ranges, tables: reached_tables(graph, options, &channels) }
    };
    (0..graph.losses.len()).map(of_part).collect()
}

/// By root: the channels of its value that get a gradient.
fn reached_channels(graph: &Graph, schedule: &Schedule, part: usize) -> Vec<Vec<bool>> {
    let mut channels: Vec<Vec<bool>> =
        graph.nodes.iter().map(|node| vec![false; node.shape.channels()]).collect();
    for (node, _) in schedule.backward.iter().enumerate().rev().filter(|(_, phase)| phase.is_some()) {
        let (op, inputs) = op_of(graph, node);
        let begins = op.loss().is_some_and(|loss| loss.index() == part);
        if !begins && !channels[node].contains(&true) {
            continue;
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&v| graph.shape(v)).collect();
        let contributing = inputs.iter().enumerate().filter(|(_, v)| schedule.contributes(graph, node, **v));
        for (i, &value) in contributing {
            let mut reached = vec![false; shapes[i].channels()];
            op.reach(&shapes, i, &channels[node], &mut reached);
            // Some columns of a value that exists once get no gradient by themselves: such a view has all of its rows.
            let (root, column) = graph.root(value);
            let from = if shapes[i].space == Space::Once { 0 } else { column };
            let to = &mut channels[root.index()][from..from + reached.len()];
            to.iter_mut().zip(&reached).for_each(|(to, &reached)| *to |= reached);
        }
    }
    channels
}

fn reached_tensors(graph: &Graph, options: &PlanOptions, channels: &[Vec<bool>]) -> Vec<bool> {
    let mut tensors = Vec::new();
    for (node, channels) in graph.nodes.iter().zip(channels) {
        let Kind::Param(p) = node.kind else { continue };
        let mut row = 0;
        for block in &graph.params[p].blocks {
            let rows = &channels[row..row + block.rows()];
            tensors.push(rows.contains(&true) && !options.freezes(&block.name));
            row += block.rows();
        }
    }
    tensors
}

fn ranges_of(layout: &Layout, tensors: &[bool]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for ((_, range), _) in layout.blocks().zip(tensors).filter(|(_, reached)| **reached) {
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

fn reached_tables(graph: &Graph, options: &PlanOptions, channels: &[Vec<bool>]) -> Vec<bool> {
    let mut tables = vec![false; graph.tables.len()];
    for (node, channels) in graph.nodes.iter().zip(channels) {
        let Kind::Op { op, .. } = &node.kind else { continue };
        for lookup in op.lookups() {
            let columns = &channels[lookup.column..lookup.column + lookup.dim];
            tables[lookup.table] |=
                columns.contains(&true) && !options.freezes(&graph.tables[lookup.table].name);
        }
    }
    tables
}
