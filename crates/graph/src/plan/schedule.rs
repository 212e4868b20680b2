//! Which ops run, in which phase, and which gradients flow.
//!
//! A plan alternates joins and phases: join 0, phase 0, join 1, phase 1 … and a last join. A phase runs ops over tiles
//! of rows; a join runs ops on values that exist once, when all lanes have come. An op whose output exists once but
//! depends on rows (a reduction) accumulates in a phase and is complete at the join after it: it cuts the plan.
//!
//! Forward, phase and join `p` hold the ops that wait for `p` cuts; what only parameters are needed for is computed at
//! join 0. The last forward phase and the first backward phase are one, so a plan without reductions runs forward and
//! backward tile by tile in a single pass. Going back, an op waits for the gradients of its output; those of a value
//! that exists once are complete at the join after the last phase that adds to them.

use super::{PlanOptions, computes_outputs};
use crate::graph::{Graph, Kind, Over, Value};
use crate::op::{Op, Reads};
use crate::shape::{Shape, Space};
use manygate_core::{Error, Result};

/// The answer for every node of a graph.
pub(crate) struct Schedule {
    /// Whether the node is needed for the losses or the outputs.
    pub(crate) live: Vec<bool>,
    /// Phase of its forward step, or the join of an op without rows.
    pub(crate) forward: Vec<usize>,
    /// Join from which on its value is complete, where it exists once.
    pub(crate) ready: Vec<usize>,
    /// Phase of its backward step, or the join of an op without rows, counted from [`last_forward`]; [`None`] when it
    /// has no backward step.
    ///
    /// [`last_forward`]: Schedule::last_forward
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
        let (forward, ready) = forward_phases(graph, &live);
        let wants_gradient = wants_gradient(graph, options, &live);
        let used =
            |v: &Vec<usize>| live.iter().zip(v).filter(|(l, _)| **l).map(|(_, p)| *p).max().unwrap_or(0);
        let last_forward = used(&forward);
        let backward = backward_phases(graph, &live, &wants_gradient);
        let tiled = backward.iter().enumerate().filter(|(i, _)| !runs_once(graph, *i));
        let last_backward = tiled.filter_map(|(_, p)| *p).max().unwrap_or(0);
        Ok(Schedule {
            live,
            forward,
            ready,
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

    /// Multiply-adds of a row in the forward pass.
    pub(crate) fn multiply_adds(&self, graph: &Graph) -> usize {
        let rows = |i: &usize| self.live[*i] && !runs_once(graph, *i);
        let each = (0..graph.nodes.len()).filter(rows).map(|i| match &graph.nodes[i].kind {
            Kind::Op { op, inputs } => {
                op.multiply_adds(&inputs.iter().map(|&v| graph.shape(v)).collect::<Vec<_>>())
            }
            _ => 0,
        });
        each.sum()
    }

    /// What the ops that run read of a batch, taken together.
    ///
    /// # Errors
    /// When two ops want dense matrices of different widths, or different numbers of scenarios.
    pub(crate) fn reads(&self, graph: &Graph) -> Result<Reads> {
        let mut all = Reads::default();
        for (op, _) in self.live_ops(graph) {
            let Reads { fields, bags, dense, labels, scenarios, by_scenario } = op.reads();
            all.fields = all.fields.max(fields);
            all.bags = all.bags.max(bags);
            all.labels = all.labels.max(labels);
            all.dense = agree(all.dense, dense, "numbers a row")?;
            all.scenarios = agree(all.scenarios, scenarios, "scenarios")?;
            all.by_scenario |= by_scenario;
        }
        for (i, node) in graph.nodes.iter().enumerate() {
            if let (true, Space::Position(bag)) = (self.live[i], node.shape.space) {
                all.bags = all.bags.max(bag + 1);
            }
        }
        if graph.is_training() {
            for loss in &graph.losses {
                all.labels = all.labels.max(loss.over.labelled().map_or(0, |task| task + 1));
                if matches!(loss.over, Over::EachScenario { .. }) || !loss.scenario_weights.is_empty() {
                    all.scenarios = agree(all.scenarios, Some(loss.groups()), "scenarios")?;
                    all.by_scenario = true;
                }
            }
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

/// Whether node `i` is an op that runs at a join, on values that exist once.
pub(crate) fn runs_once(graph: &Graph, i: usize) -> bool {
    let node = &graph.nodes[i];
    matches!(&node.kind, Kind::Op { op, .. } if node.shape.space == Space::Once && op.reduction().is_none())
}

fn agree(a: Option<usize>, b: Option<usize>, what: &str) -> Result<Option<usize>> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => {
            Err(Error::graph("batch", format!("one op reads {a} {what}, another {b}")))
        }
        _ => Ok(a.or(b)),
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

/// Phases (or joins), and the joins at which values are complete.
fn forward_phases(graph: &Graph, live: &[bool]) -> (Vec<usize>, Vec<usize>) {
    let mut phase = vec![0; graph.nodes.len()];
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
    (phase, ready)
}

fn wants_gradient(graph: &Graph, options: &PlanOptions, live: &[bool]) -> Vec<bool> {
    let mut wants = vec![false; graph.nodes.len()];
    if !graph.is_training() {
        return wants;
    }
    for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| live[*i]) {
        wants[i] = match &node.kind {
            Kind::Param(p) => graph.params[*p].blocks.iter().any(|b| !options.freezes(&b.name)),
            Kind::State(_) => false,
            Kind::Columns { of, stops_gradient, .. } => !stops_gradient && wants[of.index()],
            Kind::Op { op, inputs } => {
                let for_a_caller = op.keeps_output_gradient() && op.lookups().is_empty();
                for_a_caller
                    || op.lookups().iter().any(|l| !options.freezes(&graph.tables[l.table].name))
                    || inputs.iter().any(|v| wants[v.index()])
            }
        };
    }
    wants
}

fn backward_phases(graph: &Graph, live: &[bool], wants: &[bool]) -> Vec<Option<usize>> {
    let mut phase: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    // The latest phase in which a consumer adds to a root's gradient; the join after it where the root exists once.
    let mut complete: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().rev().filter(|(i, _)| live[*i]) {
        let Kind::Op { op, inputs } = &node.kind else { continue };
        if !wants[i] {
            continue;
        }
        phase[i] = if op.loss().is_some() { Some(0) } else { complete[i] };
        let Some(p) = phase[i] else { continue };
        let at_a_join = runs_once(graph, i);
        for &v in inputs.iter().filter(|&&v| graph.passes_gradient(v)) {
            let root = graph.root(v).0.index();
            if wants[root] {
                let joins = graph.nodes[root].shape.space == Space::Once && !at_a_join;
                complete[root] = complete[root].max(Some(p + usize::from(joins)));
            }
        }
    }
    phase
}
