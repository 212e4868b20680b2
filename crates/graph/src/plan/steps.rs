//! The steps of a plan, every place filled in.

use super::flow::{Contribution, Flow, Moment, disjoint_cover, overlap};
use super::storage::Storage;
use super::{GradientPlace, OnceGradient, PackedWeight, Phase, Place, PlanOptions, SparseSource, Step};
use super::{computes_outputs, group_packed_len, matches, op_of};
use crate::graph::{Graph, Kind};
use crate::shape::{Shape, Space};
use manygate_core::{Error, Result};

/// What running a plan needs, beside the places.
#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) phases: Vec<Phase>,
    pub(crate) packed: Vec<PackedWeight>,
    pub(crate) packed_len: usize,
    pub(crate) partial_len: usize,
    pub(crate) sparse: Vec<SparseSource>,
    pub(crate) outputs: Vec<(String, Place)>,
    pub(crate) taps: Vec<(String, Place)>,
}

impl Steps {
    pub(crate) fn new(graph: &Graph, options: &PlanOptions, flow: &Flow, storage: &Storage) -> Result<Steps> {
        let mut steps = Steps::default();
        for phase in 0..flow.order.len() {
            let phase = steps.phase(graph, flow, storage, phase)?;
            steps.phases.push(phase);
        }
        steps.find_outputs(graph, options, storage)?;
        steps.find_kept_gradients(graph, options, flow, storage)?;
        Ok(steps)
    }

    fn phase(&mut self, graph: &Graph, flow: &Flow, storage: &Storage, phase: usize) -> Result<Phase> {
        let mut out = Phase::default();
        for (position, &(node, backward)) in flow.order[phase].iter().enumerate() {
            let step = if backward {
                self.backward(graph, flow, storage, node, (phase, position))?
            } else {
                self.forward(graph, storage, node)?
            };
            if !backward && op_of(graph, node).0.reduction().is_some() {
                out.reductions.push(position);
            }
            out.steps.push(step);
        }
        for (root, place) in storage.gradients.iter().enumerate() {
            let is_op = matches!(graph.nodes[root].kind, Kind::Op { .. });
            if let (&Place::Once { offset, rows, cols, .. }, true, Some(at)) =
                (place, is_op, flow.backward_at[root])
                && at.0 == phase + 1
            {
                out.once_gradients.push(OnceGradient { node: root, offset, len: rows * cols });
            }
        }
        Ok(out)
    }

    fn forward(&mut self, graph: &Graph, storage: &Storage, node: usize) -> Result<Step> {
        let (op, inputs) = op_of(graph, node);
        let mut step = Step {
            inputs: inputs.iter().map(|&v| storage.value(graph, v)).collect(),
            output: storage.values[node],
            extra: storage.extras[node],
            packs: self.packs(graph, storage, node, false)?,
            ..Step::of(node, false)
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
            ..Step::of(node, true)
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
            // The forward product reads the transpose, that of the input's gradient the weight itself.
            if pack.transposed == backward {
                slots.push((0, 0));
                continue;
            }
            let weight = inputs[pack.input];
            let source = storage.value(graph, weight);
            if !matches!(source, Place::Param { .. }) {
                let message = format!("{}: weights that are not parameters cannot be packed", op.name());
                return Err(Error::graph(&graph.nodes[node].name, message));
            }
            let len = group_packed_len(&pack.groups, graph.cols(weight), pack.transposed);
            let offset = self.packed_len;
            self.packed_len += len.next_multiple_of(16);
            let (groups, transposed) = (pack.groups, pack.transposed);
            self.packed.push(PackedWeight { source, groups, transposed, offset, len });
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
        let frozen = |name: &str| options.frozen.iter().any(|p| matches(p, name));
        for (i, node) in graph.nodes.iter().enumerate() {
            let (Kind::Op { op, .. }, Some(_)) = (&node.kind, flow.backward_at[i]) else { continue };
            for lookup in op.lookups().iter().filter(|l| !frozen(&graph.tables[l.table].name)) {
                let place = storage.gradients[i].part(lookup.column, lookup.dim);
                self.sparse.push(SparseSource { table: lookup.table, source: lookup.source, place });
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
