//! Where every value and gradient lies.
//!
//! A value that is written and read in one phase lives in the tile arena, where memory is used again as soon as its
//! last reader has run. A value that crosses a join, an output, and a gradient that outlives the step get a buffer
//! with a row for every row of the batch. Gradients of weights are lane sums.

use super::arena::{self, Interval};
use super::flow::{Flow, Moment};
use super::schedule::Schedule;
use super::{KeptBuffer, Place, PlanOptions, computes_outputs};
use crate::graph::{Graph, Kind, Value};
use crate::param::Layout;
use crate::shape::{Shape, Space};
use manygate_core::{Error, Result};

/// The place of everything that a plan computes. By node: places of columns are parts of their root's.
#[derive(Default)]
pub(crate) struct Storage {
    pub(crate) values: Vec<Place>,
    pub(crate) gradients: Vec<Place>,
    /// What a forward step leaves for its backward step beside the output.
    pub(crate) extras: Vec<Place>,
    pub(crate) arena_len: usize,
    pub(crate) scratch_offset: usize,
    pub(crate) kept: Vec<KeptBuffer>,
    pub(crate) once_len: usize,
}

/// Distance between rows of a buffer: whole cache lines, and never a multiple of 4 KiB, where rows would compete for
/// the same cache sets.
fn stride(cols: usize) -> usize {
    if cols < 16 {
        return cols;
    }
    let stride = cols.next_multiple_of(16);
    if stride.is_multiple_of(1024) { stride + 16 } else { stride }
}

impl Storage {
    pub(crate) fn new(
        graph: &Graph,
        options: &PlanOptions,
        schedule: &Schedule,
        flow: &Flow,
        layouts: [&Layout; 2],
    ) -> Result<Storage> {
        check_lane_sums(graph, flow)?;
        let nodes = graph.nodes.len();
        let mut storage = Storage {
            values: vec![Place::Nothing; nodes],
            gradients: vec![Place::Nothing; nodes],
            extras: vec![Place::Nothing; nodes],
            ..Storage::default()
        };
        storage.place_values(graph, options, schedule, flow, layouts);
        storage.place_extras(graph, schedule, flow);
        storage.place_arena(graph, options, schedule, flow)?;
        Ok(storage)
    }

    pub(crate) fn value(&self, graph: &Graph, value: Value) -> Place {
        let (root, from) = graph.root(value);
        self.values[root.index()].part(from, graph.cols(value))
    }

    /// Places everything that is not in the arena; what is, gets its columns and a stride for now.
    fn place_values(
        &mut self,
        graph: &Graph,
        options: &PlanOptions,
        schedule: &Schedule,
        flow: &Flow,
        [layout, state_layout]: [&Layout; 2],
    ) {
        let is_output = |root: usize| {
            let mut outputs = graph.outputs.iter().map(|(_, v)| graph.root(*v).0.index());
            computes_outputs(graph, options) && outputs.any(|output| output == root)
        };
        for (root, node) in graph.nodes.iter().enumerate().filter(|(i, _)| schedule.live[*i]) {
            let Shape { rows, cols, space } = node.shape;
            match &node.kind {
                Kind::Columns { .. } => {}
                Kind::Param(p) => {
                    self.values[root] = Place::Param { offset: layout.offset(*p), rows, cols, stride: cols };
                    self.gradients[root] = self.values[root];
                }
                Kind::State(s) => {
                    let offset = state_layout.offset(*s);
                    self.values[root] = Place::State { offset, rows, cols, stride: cols };
                }
                Kind::Op { .. } if space == Space::Once => {
                    self.values[root] = Place::Once { offset: self.once_len, rows, cols, stride: cols };
                    self.gradients[root] = self.values[root];
                    self.once_len += node.shape.len().next_multiple_of(16);
                }
                Kind::Op { .. } if cols == 0 => {}
                Kind::Op { op, .. } => {
                    let keep = crosses_a_join(&flow.value_moments(graph, schedule, root)) || is_output(root);
                    self.values[root] = self.place_rows(graph, keep, &node.name, node.shape);
                    if flow.backward_at[root].is_some() {
                        let keep = crosses_a_join(&flow.gradient_moments(root)) || op.keeps_output_gradient();
                        let name = format!("gradient of {}", node.name);
                        self.gradients[root] = self.place_rows(graph, keep, &name, node.shape);
                    }
                }
            }
        }
    }

    fn place_extras(&mut self, graph: &Graph, schedule: &Schedule, flow: &Flow) {
        for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| schedule.live[*i]) {
            let Kind::Op { op, inputs } = &node.kind else { continue };
            let shapes: Vec<Shape> = inputs.iter().map(|&v| graph.shape(v)).collect();
            let cols = op.extra(&shapes);
            if cols > 0 {
                let keep = crosses_a_join(&flow.extra_moments(i));
                let shape = node.shape.with_cols(cols);
                self.extras[i] = self.place_rows(graph, keep, &format!("extra of {}", node.name), shape);
            }
        }
    }

    fn place_rows(&mut self, graph: &Graph, keep: bool, name: &str, shape: Shape) -> Place {
        let (cols, stride, rows_a_sample) =
            (shape.cols, stride(shape.cols), graph.rows_a_sample(shape.space));
        let bag = if let Space::Position(bag) = shape.space { Some(bag) } else { None };
        if keep {
            self.kept.push(KeptBuffer { name: name.to_owned(), stride, rows_a_sample });
            Place::Kept { buffer: self.kept.len() - 1, column: 0, stride, cols, bag }
        } else {
            Place::Tile { offset: 0, stride, cols, bag }
        }
    }

    /// Gives every tile value an offset in the arena. Scratch lies behind all of them.
    fn place_arena(
        &mut self,
        graph: &Graph,
        options: &PlanOptions,
        schedule: &Schedule,
        flow: &Flow,
    ) -> Result<()> {
        let mut intervals = Vec::new();
        let mut offsets: Vec<&mut usize> = Vec::new();
        let places = self.values.iter_mut().zip(&mut self.gradients).zip(&mut self.extras).enumerate();
        for (i, ((value, gradient), extra)) in places {
            let moments: [&dyn Fn() -> Vec<Moment>; 3] =
                [&|| flow.value_moments(graph, schedule, i), &|| flow.gradient_moments(i), &|| {
                    flow.extra_moments(i)
                }];
            for (place, moments) in [value, gradient, extra].into_iter().zip(moments) {
                if let Place::Tile { offset, stride, bag, .. } = place {
                    let rows = options.tile_rows * bag.map_or(1, |b| graph.rows_a_sample(Space::Position(b)));
                    intervals.push(interval(&moments(), *stride * rows));
                    offsets.push(offset);
                }
            }
        }
        self.scratch_offset = arena::assign(&mut intervals);
        arena::verify(&intervals)?;
        for (to, interval) in offsets.into_iter().zip(&intervals) {
            *to = interval.offset;
        }
        let scratch = schedule.live_ops(graph).map(|(op, shapes)| {
            let rows = shapes.iter().map(|s| s.rows.max(options.tile_rows * graph.rows_a_sample(s.space)));
            op.scratch(rows.max().unwrap_or(options.tile_rows), &shapes)
        });
        self.arena_len = self.scratch_offset + scratch.max().unwrap_or(0);
        Ok(())
    }
}

/// A block that is alive from the first of `moments`, all in one phase, to the last.
fn interval(moments: &[Moment], len: usize) -> Interval {
    let positions = moments.iter().map(|m| m.1);
    Interval {
        phase: moments.first().map_or(0, |m| m.0),
        from: positions.clone().min().unwrap_or(0),
        to: positions.max().unwrap_or(0),
        len: len.next_multiple_of(16),
        offset: 0,
    }
}

fn crosses_a_join(moments: &[Moment]) -> bool {
    moments.iter().any(|m| m.0 != moments[0].0)
}

/// A lane sum is started by its first contribution, which must therefore cover it.
fn check_lane_sums(graph: &Graph, flow: &Flow) -> Result<()> {
    for (root, node) in graph.nodes.iter().enumerate().filter(|(_, n)| n.shape.space == Space::Once) {
        if flow.contributions[root].iter().any(|c| c.columns != (0..node.shape.cols)) {
            return Err(Error::graph(&node.name, "gradients of some columns of a weight are not possible"));
        }
    }
    Ok(())
}
