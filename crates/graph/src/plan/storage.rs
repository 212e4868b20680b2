//! Where every value and gradient lies.
//!
//! A value that is written and read in one phase lives in the tile arena, where memory is used again as soon as its
//! last reader has run. A value that crosses a join, an output, and a gradient that outlives the step get a buffer
//! with a row for every row of the batch. Gradients of weights are lane sums.

use super::schedule::Schedule;
use super::{GradientPlace, KeptBuffer, PackedWeight, Phase, Place, PlanOptions, SparseSource, Step};
use super::{computes_outputs, group_packed_len, op_of};
use crate::graph::{Graph, Kind, Value};
use crate::param::Layout;
use crate::shape::{Shape, Space};
use manygate_core::{Error, Result};
use manygate_kernels::activation::Activation;
use std::ops::Range;

/// Everything that placing decides.
#[derive(Default)]
pub(crate) struct Placed {
    pub(crate) phases: Vec<Phase>,
    pub(crate) packed: Vec<PackedWeight>,
    pub(crate) packed_len: usize,
    pub(crate) arena_len: usize,
    pub(crate) scratch_offset: usize,
    pub(crate) kept: Vec<KeptBuffer>,
    pub(crate) once_len: usize,
    pub(crate) partial_len: usize,
    pub(crate) sparse: Vec<SparseSource>,
    pub(crate) outputs: Vec<(String, Place)>,
    pub(crate) taps: Vec<(String, Place)>,
}

/// A moment of the plan: phase, position in it.
type Moment = (usize, usize);

/// One addition to the gradient of a root.
#[derive(Clone, Debug)]
struct Contribution {
    at: Moment,
    consumer: usize,
    input: usize,
    columns: Range<usize>,
    mask: Option<Activation>,
}

struct Placer<'a> {
    graph: &'a Graph,
    schedule: &'a Schedule,
    layout: &'a Layout,
    state_layout: &'a Layout,
    order: Vec<Vec<(usize, bool)>>,
    forward_at: Vec<Option<Moment>>,
    backward_at: Vec<Option<Moment>>,
    /// By root.
    contributions: Vec<Vec<Contribution>>,
    activation_done: Vec<bool>,
    values: Vec<Place>,
    gradients: Vec<Place>,
    extras: Vec<Place>,
    placed: Placed,
}

pub(crate) fn place(
    graph: &Graph,
    options: &PlanOptions,
    schedule: &Schedule,
    layout: &Layout,
    state_layout: &Layout,
) -> Result<Placed> {
    let nodes = graph.nodes.len();
    let mut placer = Placer {
        graph,
        schedule,
        layout,
        state_layout,
        order: Vec::new(),
        forward_at: vec![None; nodes],
        backward_at: vec![None; nodes],
        contributions: vec![Vec::new(); nodes],
        activation_done: vec![false; nodes],
        values: vec![Place::Nothing; nodes],
        gradients: vec![Place::Nothing; nodes],
        extras: vec![Place::Nothing; nodes],
        placed: Placed::default(),
    };
    placer.order_steps();
    placer.find_contributions();
    placer.fuse_masks();
    placer.place_values(options);
    placer.place_extras();
    placer.place_arena(options);
    placer.check_lane_sums()?;
    placer.emit_steps(options);
    placer.emit_results(options);
    Ok(placer.placed)
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

impl Placer<'_> {
    fn order_steps(&mut self) {
        let s = self.schedule;
        let ops = |i: &usize| s.live[*i] && matches!(self.graph.nodes[*i].kind, Kind::Op { .. });
        for phase in 0..s.phases {
            let forward = (0..self.graph.nodes.len()).filter(ops).filter(|&i| s.forward[i] == phase);
            let mut steps: Vec<(usize, bool)> = forward.map(|i| (i, false)).collect();
            if let Some(p) = phase.checked_sub(s.last_forward) {
                let backward =
                    (0..self.graph.nodes.len()).rev().filter(ops).filter(|&i| s.backward[i] == Some(p));
                steps.extend(backward.map(|i| (i, true)));
            }
            for (position, &(node, backward)) in steps.iter().enumerate() {
                let at = if backward { &mut self.backward_at } else { &mut self.forward_at };
                at[node] = Some((phase, position));
            }
            self.order.push(steps);
        }
    }

    fn find_contributions(&mut self) {
        for (phase, steps) in self.order.iter().enumerate() {
            for (position, &(node, backward)) in steps.iter().enumerate() {
                if !backward {
                    continue;
                }
                for (input, &v) in op_of(self.graph, node).1.iter().enumerate() {
                    if self.schedule.contributes(self.graph, node, v) {
                        let (root, from) = self.graph.root(v);
                        self.contributions[root.index()].push(Contribution {
                            at: (phase, position),
                            consumer: node,
                            input,
                            columns: from..from + self.graph.cols(v),
                            mask: None,
                        });
                    }
                }
            }
        }
    }

    /// Lets the last op that adds to an activated value's gradient multiply by the activation's slope in passing.
    fn fuse_masks(&mut self) {
        for root in 0..self.graph.nodes.len() {
            let Kind::Op { op, .. } = &self.graph.nodes[root].kind else { continue };
            let Some((activation, columns)) = op.activated() else { continue };
            let overlaps =
                |c: &&mut Contribution| c.columns.start < columns.end && columns.start < c.columns.end;
            let Some(last) = self.contributions[root].iter_mut().rfind(overlaps) else { continue };
            if last.columns == columns && op_of(self.graph, last.consumer).0.masks(last.input) {
                last.mask = Some(activation);
                self.activation_done[root] = true;
            }
        }
    }

    /// The moments at which the forward value of `root` is written or read.
    fn value_moments(&self, root: usize) -> Vec<Moment> {
        let mut moments: Vec<Moment> = self.forward_at[root].into_iter().collect();
        if op_of(self.graph, root).0.saved().output {
            moments.extend(self.backward_at[root]);
        }
        moments.extend(self.contributions[root].iter().filter(|c| c.mask.is_some()).map(|c| c.at));
        for consumer in 0..self.graph.nodes.len() {
            let (Kind::Op { op, inputs }, true) =
                (&self.graph.nodes[consumer].kind, self.schedule.live[consumer])
            else {
                continue;
            };
            for (i, &v) in inputs.iter().enumerate().filter(|(_, v)| self.graph.root(**v).0.index() == root) {
                debug_assert!(self.schedule.live[v.index()]);
                moments.extend(self.forward_at[consumer]);
                if op.saved().inputs & 1 << i != 0 {
                    moments.extend(self.backward_at[consumer]);
                }
            }
        }
        moments
    }

    fn gradient_moments(&self, root: usize) -> Vec<Moment> {
        self.contributions[root].iter().map(|c| c.at).chain(self.backward_at[root]).collect()
    }

    /// Places everything that is not in the arena; what is, gets its columns and a stride for now.
    fn place_values(&mut self, options: &PlanOptions) {
        let kept_outputs: Vec<usize> = if computes_outputs(self.graph, options) {
            self.graph.outputs.iter().map(|(_, v)| self.graph.root(*v).0.index()).collect()
        } else {
            Vec::new()
        };
        for root in (0..self.graph.nodes.len()).filter(|&i| self.schedule.live[i]) {
            let node = &self.graph.nodes[root];
            let Shape { rows, cols, .. } = node.shape;
            match &node.kind {
                Kind::Columns { .. } => {}
                Kind::Param(p) => {
                    self.values[root] =
                        Place::Param { offset: self.layout.offset(*p), rows, cols, stride: cols };
                    self.gradients[root] = self.values[root];
                }
                Kind::State(s) => {
                    self.values[root] =
                        Place::State { offset: self.state_layout.offset(*s), rows, cols, stride: cols };
                }
                Kind::Op { .. } if node.shape.space == Space::Once => {
                    self.values[root] =
                        Place::Once { offset: self.placed.once_len, rows, cols, stride: cols };
                    self.gradients[root] = self.values[root];
                    self.placed.once_len += node.shape.len().next_multiple_of(16);
                }
                Kind::Op { .. } if cols == 0 => {}
                Kind::Op { op, .. } => {
                    let one_phase = |moments: &[Moment]| moments.iter().all(|m| m.0 == moments[0].0);
                    let keep = !one_phase(&self.value_moments(root)) || kept_outputs.contains(&root);
                    self.values[root] = self.batch_place(keep, &node.name, cols);
                    let moments = self.gradient_moments(root);
                    if self.backward_at[root].is_some() {
                        let keep = !one_phase(&moments) || op.keeps_output_gradient();
                        self.gradients[root] =
                            self.batch_place(keep, &format!("gradient of {}", node.name), cols);
                    }
                }
            }
        }
    }

    fn extra_moments(&self, node: usize) -> Vec<Moment> {
        self.forward_at[node].into_iter().chain(self.backward_at[node]).collect()
    }

    fn place_extras(&mut self) {
        for node in (0..self.graph.nodes.len()).filter(|&i| self.schedule.live[i]) {
            let Kind::Op { op, inputs } = &self.graph.nodes[node].kind else { continue };
            let shapes: Vec<Shape> = inputs.iter().map(|&v| self.graph.shape(v)).collect();
            let cols = op.extra(&shapes);
            if cols > 0 {
                let moments = self.extra_moments(node);
                let keep = moments.iter().any(|m| m.0 != moments[0].0);
                self.extras[node] =
                    self.batch_place(keep, &format!("extra of {}", self.graph.nodes[node].name), cols);
            }
        }
    }

    fn batch_place(&mut self, keep: bool, name: &str, cols: usize) -> Place {
        let stride = stride(cols);
        if keep {
            self.placed.kept.push(KeptBuffer { name: name.to_owned(), stride });
            Place::Kept { buffer: self.placed.kept.len() - 1, column: 0, stride, cols }
        } else {
            Place::Tile { offset: 0, stride, cols }
        }
    }

    /// Gives every tile value an offset in the arena: first fit over the times in which it is alive.
    fn place_arena(&mut self, options: &PlanOptions) {
        #[derive(Clone, Copy, PartialEq)]
        enum What {
            Value,
            Gradient,
            Extra,
        }
        struct Interval {
            root: usize,
            what: What,
            phase: usize,
            from: usize,
            to: usize,
            len: usize,
        }
        let mut intervals = Vec::new();
        for root in 0..self.graph.nodes.len() {
            let places = [
                (What::Value, self.values[root]),
                (What::Gradient, self.gradients[root]),
                (What::Extra, self.extras[root]),
            ];
            for (what, place) in places {
                let Place::Tile { stride, .. } = place else { continue };
                let moments = match what {
                    What::Value => self.value_moments(root),
                    What::Gradient => self.gradient_moments(root),
                    What::Extra => self.extra_moments(root),
                };
                let positions = moments.iter().map(|m| m.1);
                intervals.push(Interval {
                    root,
                    what,
                    phase: moments[0].0,
                    from: positions.clone().min().unwrap_or(0),
                    to: positions.max().unwrap_or(0),
                    len: (stride * options.tile_rows).next_multiple_of(16),
                });
            }
        }
        intervals.sort_by_key(|i| (i.phase, i.from, std::cmp::Reverse(i.len)));
        let mut alive: Vec<(usize, usize, usize)> = Vec::new();
        let mut phase = 0;
        for interval in intervals {
            if interval.phase != phase {
                alive.clear();
                phase = interval.phase;
            }
            alive.retain(|&(_, _, to)| to >= interval.from);
            alive.sort_unstable();
            let mut offset = 0;
            for &(start, end, _) in &alive {
                if start >= offset + interval.len {
                    break;
                }
                offset = offset.max(end);
            }
            alive.push((offset, offset + interval.len, interval.to));
            self.placed.arena_len = self.placed.arena_len.max(offset + interval.len);
            let places = match interval.what {
                What::Value => &mut self.values,
                What::Gradient => &mut self.gradients,
                What::Extra => &mut self.extras,
            };
            if let Place::Tile { offset: at, .. } = &mut places[interval.root] {
                *at = offset;
            }
        }
        self.placed.scratch_offset = self.placed.arena_len;
        let scratch =
            self.schedule.live_ops(self.graph).map(|(op, shapes)| op.scratch(options.tile_rows, &shapes));
        self.placed.arena_len += scratch.max().unwrap_or(0);
    }

    /// A lane sum is started by its first contribution, which must therefore cover it.
    fn check_lane_sums(&self) -> Result<()> {
        for (root, node) in self.graph.nodes.iter().enumerate() {
            let whole = 0..node.shape.cols;
            let once = node.shape.space == Space::Once;
            if once && self.contributions[root].iter().any(|c| c.columns != whole) {
                return Err(Error::graph(
                    &node.name,
                    "gradients of some columns of a weight are not possible",
                ));
            }
        }
        Ok(())
    }

    fn value_place(&self, value: Value) -> Place {
        let (root, from) = self.graph.root(value);
        part(self.values[root.index()], from, self.graph.cols(value))
    }

    fn emit_steps(&mut self, options: &PlanOptions) {
        for phase in 0..self.order.len() {
            let mut out = Phase::default();
            for position in 0..self.order[phase].len() {
                let (node, backward) = self.order[phase][position];
                let (op, inputs) = op_of(self.graph, node);
                let mut step = Step {
                    node,
                    backward,
                    inputs: inputs.iter().map(|&v| self.value_place(v)).collect(),
                    output: self.values[node],
                    extra: self.extras[node],
                    output_gradient: Place::Nothing,
                    gradients: Vec::new(),
                    activation_done: self.activation_done[node],
                    packs: Vec::new(),
                };
                if backward {
                    step.output_gradient = self.gradients[node];
                    step.gradients =
                        (0..inputs.len()).map(|i| self.gradient_place(node, i, (phase, position))).collect();
                } else if let Some(reduction) = op.reduction() {
                    let shapes: Vec<Shape> = inputs.iter().map(|&v| self.graph.shape(v)).collect();
                    let len = reduction.partial_len(&shapes);
                    out.reductions.push((node, self.placed.partial_len, len));
                    self.placed.partial_len += len;
                }
                step.packs = self.packs(node, backward);
                out.steps.push(step);
            }
            for root in 0..self.graph.nodes.len() {
                let is_join = matches!(self.graph.nodes[root].kind, Kind::Op { .. });
                if let (Place::Once { offset, rows, cols, .. }, true, Some(at)) =
                    (self.gradients[root], is_join, self.backward_at[root])
                {
                    if at.0 == phase + 1 {
                        out.once_gradients.push((offset, rows * cols));
                    }
                }
            }
            self.placed.phases.push(out);
        }
        debug_assert!(options.tile_rows > 0);
    }

    fn gradient_place(&self, consumer: usize, input: usize, at: Moment) -> Option<GradientPlace> {
        let (_, inputs) = op_of(self.graph, consumer);
        let (root, from) = self.graph.root(inputs[input]);
        let all = &self.contributions[root.index()];
        let mine = all.iter().position(|c| c.at == at && c.input == input)?;
        let shape = self.graph.nodes[root.index()].shape;
        let place = self.gradients[root.index()];
        let mask =
            all[mine].mask.map(|a| (a, part(self.values[root.index()], from, all[mine].columns.len())));
        if shape.space == Space::Once {
            return Some(GradientPlace { place, accumulate: mine > 0, mask, zero_first: None });
        }
        let plain = disjoint_cover(all, shape.cols);
        let accumulate = !plain || all[..mine].iter().any(|c| overlap(&c.columns, &all[mine].columns));
        let zero_first = (!plain && mine == 0).then_some(place);
        Some(GradientPlace {
            place: part(place, from, all[mine].columns.len()),
            accumulate,
            mask,
            zero_first,
        })
    }

    fn packs(&mut self, node: usize, backward: bool) -> Vec<(usize, usize)> {
        let (op, inputs) = op_of(self.graph, node);
        let inputs = inputs.to_vec();
        let mut slots = Vec::new();
        for pack in op.packs() {
            let needed = pack.transposed != backward;
            if !needed {
                slots.push((0, 0));
                continue;
            }
            let len = group_packed_len(&pack.groups, self.graph.cols(inputs[pack.input]), pack.transposed);
            let offset = self.placed.packed_len;
            self.placed.packed_len += len.next_multiple_of(16);
            self.placed.packed.push(PackedWeight {
                source: self.value_place(inputs[pack.input]),
                groups: pack.groups,
                transposed: pack.transposed,
                offset,
                len,
            });
            slots.push((offset, len));
        }
        slots
    }

    fn emit_results(&mut self, options: &PlanOptions) {
        if computes_outputs(self.graph, options) {
            self.placed.outputs =
                self.graph.outputs.iter().map(|(name, v)| (name.clone(), self.value_place(*v))).collect();
        }
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let (Kind::Op { op, .. }, Some(_)) = (&node.kind, self.backward_at[i]) else { continue };
            for lookup in op.lookups() {
                let place = part(self.gradients[i], lookup.column, lookup.dim);
                self.placed.sparse.push(SparseSource { table: lookup.table, source: lookup.source, place });
            }
            if op.keeps_output_gradient() && op.lookups().is_empty() {
                self.placed.taps.push((node.name.clone(), self.gradients[i]));
            }
        }
    }
}

/// Whether contributions, in order, either repeat columns already covered or add new ones, and cover all in the end:
/// then each column's first contribution can overwrite.
fn disjoint_cover(all: &[Contribution], cols: usize) -> bool {
    let mut covered = vec![false; cols];
    for c in all {
        let before = covered[c.columns.clone()].iter().filter(|&&b| b).count();
        if before != 0 && before != c.columns.len() {
            return false;
        }
        covered[c.columns.clone()].fill(true);
    }
    covered.iter().all(|&b| b)
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Columns `from .. from + count` of a place.
fn part(place: Place, from: usize, count: usize) -> Place {
    match place {
        Place::Tile { offset, stride, .. } => Place::Tile { offset: offset + from, stride, cols: count },
        Place::Kept { buffer, column, stride, .. } => {
            Place::Kept { buffer, column: column + from, stride, cols: count }
        }
        Place::Param { offset, rows, stride, .. } => {
            Place::Param { offset: offset + from, rows, stride, cols: count }
        }
        Place::State { offset, rows, stride, .. } => {
            Place::State { offset: offset + from, rows, stride, cols: count }
        }
        Place::Once { offset, rows, stride, .. } => {
            Place::Once { offset: offset + from, rows, stride, cols: count }
        }
        Place::Nothing => Place::Nothing,
    }
}
