//! Which ops run, in which phase, and which gradients flow.
//!
//! An op whose output exists once but depends on rows (a reduction) needs the whole batch before its consumers can
//! start: it cuts the plan. Forward phase `p` holds the ops that wait for `p` joins. The last forward phase and the
//! first backward phase are one, so a plan without reductions runs forward and backward tile by tile in a single
//! pass. Going back, an op waits for the gradients of its output; a reduction waits one join longer, until the sum of
//! its output's gradient over all lanes is known.

use super::{PlanOptions, computes_outputs, matches};
use crate::graph::{Graph, Kind, Value};
use crate::op::{Op, Reads};
use crate::shape::{Shape, Space};
use manygate_core::{Error, Result};

/// The answer for every node of a graph.
pub(crate) struct Schedule {
    /// Whether the node is needed for the losses or the outputs.
    pub(crate) live: Vec<bool>,
    /// Joins before its forward step.
    pub(crate) forward: Vec<usize>,
    /// Joins before its backward step, after the last forward phase; [`None`] when it has no backward step.
    pub(crate) backward: Vec<Option<usize>>,
    /// Whether gradients are wanted for the node's own value.
    pub(crate) wants_gradient: Vec<bool>,
    /// Number of the phase in which forward ends and backward begins.
    pub(crate) last_forward: usize,
    /// Phases in all.
    pub(crate) phases: usize,
}

impl Schedule {
    pub(crate) fn new(graph: &Graph, options: &PlanOptions) -> Result<Schedule> {
        let live = live(graph, options)?;
        let forward = forward_phases(graph, &live);
        let wants_gradient = wants_gradient(graph, options, &live);
        let used =
            |v: &Vec<usize>| live.iter().zip(v).filter(|(l, _)| **l).map(|(_, p)| *p).max().unwrap_or(0);
        let last_forward = used(&forward);
        let backward = backward_phases(graph, &live, &wants_gradient);
        let last_backward = backward.iter().flatten().copied().max().unwrap_or(0);
        Ok(Schedule {
            live,
            forward,
            backward,
            wants_gradient,
            last_forward,
            phases: last_forward + last_backward + 1,
        })
    }

    /// The ops that run, with the shapes of their inputs.
    pub(crate) fn live_ops<'g>(&'g self, graph: &'g Graph) -> impl Iterator<Item = (&'g dyn Op, Vec<Shape>)> {
        graph.nodes.iter().zip(&self.live).filter_map(|(node, &live)| match &node.kind {
            Kind::Op { op, inputs } if live => {
                Some((op.as_ref(), inputs.iter().map(|&v| graph.shape(v)).collect()))
            }
            _ => None,
        })
    }

    /// What the ops that run read of a batch, taken together.
    ///
    /// # Errors
    /// When two ops want dense matrices of different widths.
    pub(crate) fn reads(&self, graph: &Graph) -> Result<Reads> {
        let mut all = Reads::default();
        for (op, _) in self.live_ops(graph) {
            let Reads { fields, bags, dense, labels } = op.reads();
            all.fields = all.fields.max(fields);
            all.bags = all.bags.max(bags);
            all.labels = all.labels.max(labels);
            if let (Some(a), Some(b)) = (all.dense, dense)
                && a != b
            {
                let message = format!("one op reads {a} numbers a row, another {b}");
                return Err(Error::graph("batch", message));
            }
            all.dense = all.dense.or(dense);
        }
        if graph.is_training() {
            let counted = graph.losses.iter().filter_map(|l| l.counted).max();
            all.labels = all.labels.max(counted.map_or(0, |task| task + 1));
        }
        Ok(all)
    }

    /// Whether the backward step of `consumer` gives a gradient to its input `value`.
    pub(crate) fn contributes(&self, graph: &Graph, consumer: usize, value: Value) -> bool {
        self.backward[consumer].is_some()
            && graph.passes_gradient(value)
            && self.wants_gradient[graph.root(value).0.index()]
    }
}

fn live(graph: &Graph, options: &PlanOptions) -> Result<Vec<bool>> {
    let mut live = vec![false; graph.nodes.len()];
    if computes_outputs(graph, options) {
        graph.outputs.iter().for_each(|(_, v)| live[v.index()] = true);
    }
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        if graph.is_training() && is_loss(&node.kind) {
            live[i] = true;
        }
        if live[i] {
            match &node.kind {
                Kind::Op { inputs, .. } => inputs.iter().for_each(|v| live[v.index()] = true),
                Kind::Columns { of, .. } => live[of.index()] = true,
                Kind::Param(_) | Kind::State(_) => {}
            }
        }
    }
    if !live.contains(&true) {
        return Err(Error::graph("plan", "the graph has neither a loss nor an output to compute"));
    }
    Ok(live)
}

fn is_loss(kind: &Kind) -> bool {
    matches!(kind, Kind::Op { op, .. } if op.loss().is_some())
}

fn forward_phases(graph: &Graph, live: &[bool]) -> Vec<usize> {
    let mut phase = vec![0; graph.nodes.len()];
    // When a value can be read: an op's phase, or one later for what a reduction gives.
    let mut ready = vec![0; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        match &node.kind {
            Kind::Op { op, inputs } => {
                phase[i] = inputs.iter().map(|v| ready[v.index()]).max().unwrap_or(0);
                ready[i] = phase[i] + usize::from(op.reduction().is_some());
            }
            Kind::Columns { of, .. } => {
                phase[i] = phase[of.index()];
                ready[i] = ready[of.index()];
            }
            Kind::Param(_) | Kind::State(_) => {}
        }
    }
    phase
}

fn wants_gradient(graph: &Graph, options: &PlanOptions, live: &[bool]) -> Vec<bool> {
    let mut wants = vec![false; graph.nodes.len()];
    if !graph.is_training() {
        return wants;
    }
    let frozen = |name: &str| options.frozen.iter().any(|p| matches(p, name));
    for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        wants[i] = match &node.kind {
            Kind::Param(p) => graph.params[*p].blocks.iter().any(|b| !frozen(&b.name)),
            Kind::State(_) => false,
            Kind::Columns { of, stops_gradient, .. } => !stops_gradient && wants[of.index()],
            Kind::Op { op, inputs } => {
                let for_a_caller = op.keeps_output_gradient() && op.lookups().is_empty();
                for_a_caller
                    || op.lookups().iter().any(|l| !frozen(&graph.tables[l.table].name))
                    || inputs.iter().any(|v| wants[v.index()])
            }
        };
    }
    wants
}

fn backward_phases(graph: &Graph, live: &[bool], wants: &[bool]) -> Vec<Option<usize>> {
    let mut phase: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    // The latest phase in which a consumer adds to a root's gradient.
    let mut complete: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().rev().filter(|(i, _)| live[*i]) {
        let Kind::Op { op, inputs } = &node.kind else { continue };
        if !wants[i] {
            continue;
        }
        phase[i] = if op.loss().is_some() {
            Some(0)
        } else {
            complete[i].map(|p| p + usize::from(node.shape.space == Space::Once))
        };
        let Some(p) = phase[i] else { continue };
        for &v in inputs.iter().filter(|&&v| graph.passes_gradient(v)) {
            let root = graph.root(v).0.index();
            if wants[root] {
                complete[root] = complete[root].max(Some(p));
            }
        }
    }
    phase
}
