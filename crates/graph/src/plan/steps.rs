//! The steps of a plan, every place filled in.

use super::flow::{Contribution, Flow, Moment, disjoint_cover, overlap};
use super::schedule::{Schedule, runs_once};
use super::storage::Storage;
use super::{GradientPlace, JoinStep, OnceGradient, PackedWeight, Place, PlanOptions, SparseSource, Step};
use super::{computes_outputs, group_packed_len, op_of};
use crate::graph::{Graph, Kind};
use crate::op::Lookup;
use crate::shape::{Shape, Space};
use manygate_core::{Error, Result};

/// What running a plan needs, beside the places.
#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) phases: Vec<Vec<Step>>,
    pub(crate) joins: Vec<Vec<JoinStep>>,
    pub(crate) packed: Vec<PackedWeight>,
    pub(crate) packed_len: usize,
    pub(crate) partial_len: usize,
    pub(crate) sparse: Vec<SparseSource>,
    pub(crate) outputs: Vec<(String, Place)>,
    pub(crate) taps: Vec<(String, Place)>,
}

impl Steps {
    pub(crate) fn new(
        graph: &Graph,
        options: &PlanOptions,
        schedule: &Schedule,
        flow: &Flow,
        storage: &Storage,
    ) -> Result<Steps> {
        let mut steps = Steps::default();
        // Where weights that a join computes are packed: behind its values, before the gradients.
        let mut values_end = Vec::new();
        for moment in 0..flow.order.len() {
            if moment % 2 == 0 {
                let values = steps.join_values(graph, flow, storage, moment)?;
                values_end.push(values.len());
                steps.joins.push(values);
                steps.join_gradients(graph, flow, storage, moment)?;
            } else {
                let phase = steps.steps(graph, flow, storage, moment)?;
                steps.phases.push(phase);
            }
        }
        steps.pack_at_joins(graph, schedule, storage, &values_end);
        steps.find_outputs(graph, options, storage)?;
        steps.find_kept_gradients(graph, options, flow, storage)?;
        Ok(steps)
    }

    /// The steps of a phase, or those of a join without what surrounds them.
    fn steps(&mut self, graph: &Graph, flow: &Flow, storage: &Storage, moment: usize) -> Result<Vec<Step>> {
        let order = flow.order[moment].iter().enumerate();
        order.map(|(position, &at)| self.step(graph, flow, storage, at, (moment, position))).collect()
    }

    fn step(
        &mut self,
        graph: &Graph,
        flow: &Flow,
        storage: &Storage,
        (node, backward): (usize, bool),
        at: Moment,
    ) -> Result<Step> {
        if backward {
            self.backward(graph, flow, storage, node, at)
        } else {
            self.forward(graph, storage, node)
        }
    }

    /// What a join completes and computes: the reductions of the phase before it, then ops.
    fn join_values(
        &mut self,
        graph: &Graph,
        flow: &Flow,
        storage: &Storage,
        moment: usize,
    ) -> Result<Vec<JoinStep>> {
        let phase_before = moment.checked_sub(1).map_or(&[][..], |_| &self.phases[moment / 2 - 1]);
        let is_reduction = |s: &&Step| !s.backward && s.reduces;
        let mut join: Vec<JoinStep> =
            phase_before.iter().filter(is_reduction).cloned().map(JoinStep::Reduce).collect();
        for (position, &at) in flow.order[moment].iter().enumerate().filter(|(_, (_, backward))| !backward) {
            join.push(JoinStep::Run(self.step(graph, flow, storage, at, (moment, position))?));
        }
        Ok(join)
    }

    /// Gradients that are complete at a join, each followed by the op that waits for it.
    fn join_gradients(&mut self, graph: &Graph, flow: &Flow, storage: &Storage, moment: usize) -> Result<()> {
        for node in (0..graph.nodes.len()).rev() {
            let Some(at) = flow.backward_at[node].filter(|at| at.0 == moment || at.0 == moment + 1) else {
                continue;
            };
            if let Place::Once { offset, rows, cols, .. } = storage.gradients[node] {
                let join = &mut self.joins[moment / 2];
                if rows * cols > 0 {
                    join.push(JoinStep::Gradient(OnceGradient { node, offset, len: rows * cols }));
                }
                if runs_once(graph, node) {
                    let step = self.step(graph, flow, storage, (node, true), at)?;
                    self.joins[moment / 2].push(JoinStep::Run(step));
                }
            }
        }
        Ok(())
    }

    /// What a join computes is packed there, state at the first one; parameters are packed when they change.
    fn pack_at_joins(&mut self, graph: &Graph, schedule: &Schedule, storage: &Storage, values_end: &[usize]) {
        for (index, weight) in self.packed.iter().enumerate() {
            let offset = match weight.source {
                Place::Once { offset, .. } => offset,
                Place::State { .. } => {
                    self.joins[0].insert(values_end[0], JoinStep::Pack(index));
                    continue;
                }
                _ => continue,
            };
            let is_source = |place: &Place| matches!(place, Place::Once { offset: o, .. } if *o == offset);
            if let Some(node) = storage.values.iter().position(is_source) {
                debug_assert!(graph.nodes[node].shape.space == Space::Once);
                let join = schedule.ready[node];
                self.joins[join].insert(values_end[join], JoinStep::Pack(index));
            }
        }
    }

    fn forward(&mut self, graph: &Graph, storage: &Storage, node: usize) -> Result<Step> {
        let (op, inputs) = op_of(graph, node);
        let mut step = Step {
            inputs: inputs.iter().map(|&v| storage.value(graph, v)).collect(),
            output: storage.values[node],
            extra: storage.extras[node],
            packs: self.packs(graph, storage, node, false)?,
            ..Step::of(node, op, false)
        };
        if let Some(reduction) = op.reduction() {
            let shapes: Vec<Shape> = inputs.iter().map(|&v| graph.shape(v)).collect();
            let len = reduction.partial_len(&shapes);
            step.partial = self.partial_len..self.partial_len + len;
            self.partial_len += len;
        }
        Ok(step)
    }

    fn backward(
        &mut self,
        graph: &Graph,
        flow: &Flow,
        storage: &Storage,
        node: usize,
        at: Moment,
    ) -> Result<Step> {
        let (op, inputs) = op_of(graph, node);
        let saved = op.saved();
        // Memory of a value that was not saved may hold another by now.
        let readable = |place: Place, saved: bool| match place {
            Place::Tile { .. } | Place::Kept { .. } if !saved => Place::Gone,
            place => place,
        };
        let mut step = Step {
            output: readable(storage.values[node], saved.output),
            extra: storage.extras[node],
            output_gradient: storage.gradients[node],
            activation_done: flow.activation_done[node],
            packs: self.packs(graph, storage, node, true)?,
            ..Step::of(node, op, true)
        };
        for (i, &v) in inputs.iter().enumerate() {
            step.inputs.push(readable(storage.value(graph, v), saved.has_input(i)));
            let gradient = gradient_place(graph, flow, storage, node, i, at, &mut step.zero);
            step.wanted |= u64::from(gradient.is_some()) << i;
            step.gradients.push(gradient);
        }
        Ok(step)
    }

    fn packs(
        &mut self,
        graph: &Graph,
        storage: &Storage,
        node: usize,
        backward: bool,
    ) -> Result<Vec<(usize, usize)>> {
        let (op, inputs) = op_of(graph, node);
        let mut slots = Vec::new();
        for pack in op.packs() {
            if pack.backward != backward {
                slots.push((0, 0));
                continue;
            }
            let weight = inputs[pack.input];
            let source = storage.value(graph, weight);
            let packed_here = !matches!(source, Place::Param { .. }) && runs_once(graph, node);
            if packed_here
                || !matches!(source, Place::Param { .. } | Place::State { .. } | Place::Once { .. })
            {
                let message =
                    format!("{}: this weight is neither a parameter, state, nor computed before", op.name());
                return Err(Error::graph(&graph.nodes[node].name, message));
            }
            let len = group_packed_len(&pack.groups, graph.cols(weight), pack.transposed);
            let offset = self.packed_len;
            self.packed_len += len.next_multiple_of(16);
            let (groups, transposed) = (pack.groups, pack.transposed);
            let reads = op.reads();
            let scenarios = reads.scenarios.filter(|_| reads.by_scenario).unwrap_or(1);
            self.packed.push(PackedWeight { source, groups, transposed, scenarios, offset, len });
            slots.push((offset, len));
        }
        Ok(slots)
    }

    fn find_outputs(&mut self, graph: &Graph, options: &PlanOptions, storage: &Storage) -> Result<()> {
        if !computes_outputs(graph, options) {
            return Ok(());
        }
        for (name, value) in &graph.outputs {
            let place = storage.value(graph, *value);
            if !matches!(place, Place::Kept { .. } | Place::Once { .. }) {
                return Err(Error::graph(name, "only what an op computes can be an output"));
            }
            push_named(&mut self.outputs, name, place, "outputs")?;
        }
        Ok(())
    }

    /// Gradients that outlive the step: rows of tables that learn, and taps.
    fn find_kept_gradients(
        &mut self,
        graph: &Graph,
        options: &PlanOptions,
        flow: &Flow,
        storage: &Storage,
    ) -> Result<()> {
        for (i, node) in graph.nodes.iter().enumerate() {
            let (Kind::Op { op, .. }, Some(_)) = (&node.kind, flow.backward_at[i]) else { continue };
            for lookup in op.lookups().iter().filter(|l| !options.freezes(&graph.tables[l.table].name)) {
                let place = storage.gradients[i].part(lookup.column, lookup.dim);
                let Lookup { table, source, scenario, .. } = *lookup;
                self.sparse.push(SparseSource { table, source, scenario, place });
            }
            if op.keeps_output_gradient() && op.lookups().is_empty() {
                push_named(&mut self.taps, &node.name, storage.gradients[i], "taps")?;
            }
        }
        Ok(())
    }
}

fn push_named(list: &mut Vec<(String, Place)>, name: &str, place: Place, what: &str) -> Result<()> {
    if list.iter().any(|(n, _)| n == name) {
        return Err(Error::graph(name, format!("two {what} have this name")));
    }
    list.push((name.to_owned(), place));
    Ok(())
}

/// Where the step `at` puts the gradient of an input, if anybody wants it. A buffer that the contributions to it do not
/// cover is added to `zero` by the first of them.
fn gradient_place(
    graph: &Graph,
    flow: &Flow,
    storage: &Storage,
    consumer: usize,
    input: usize,
    at: Moment,
    zero: &mut Vec<Place>,
) -> Option<GradientPlace> {
    let (root, from) = graph.root(op_of(graph, consumer).1[input]);
    let all = &flow.contributions[root.index()];
    let mine = all.iter().position(|c| c.at == at && c.input == input)?;
    let Contribution { columns, mask, .. } = &all[mine];
    let mask = mask.map(|a| (a, storage.values[root.index()].part(from, columns.len())));
    let place = storage.gradients[root.index()];
    let shape = graph.nodes[root.index()].shape;
    if shape.space == Space::Once {
        return Some(GradientPlace { place, accumulate: mine > 0, mask });
    }
    let covered = disjoint_cover(all, shape.cols);
    if !covered && mine == 0 {
        zero.push(place);
    }
    let accumulate = !covered || all[..mine].iter().any(|c| overlap(&c.columns, columns));
    Some(GradientPlace { place: place.part(from, columns.len()), accumulate, mask })
}
