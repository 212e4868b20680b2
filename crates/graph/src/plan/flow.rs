//! In which order the steps of a plan run, and which of them add to which gradient.

use super::op_of;
use super::schedule::{Schedule, runs_once};
use crate::graph::{Graph, Kind};
use crate::shape::Space;
use manygate_kernels::activation::Activation;
use std::ops::Range;

/// A moment of the plan: twice the number of a join, or that of a phase and 1 more; position in it.
pub(crate) type Moment = (usize, usize);

/// One addition to the gradient of a root.
#[derive(Clone, Debug)]
pub(crate) struct Contribution {
    pub(crate) at: Moment,
    pub(crate) consumer: usize,
    pub(crate) input: usize,
    pub(crate) columns: Range<usize>,
    /// The slope by which it multiplies the sum, for the op below.
    pub(crate) mask: Option<Activation>,
}

/// The answer for a whole graph.
pub(crate) struct Flow {
    /// Join 0, phase 0, join 1 … the last join: node, and whether its backward step.
    pub(crate) order: Vec<Vec<(usize, bool)>>,
    pub(crate) forward_at: Vec<Option<Moment>>,
    pub(crate) backward_at: Vec<Option<Moment>>,
    /// By root, in the order in which they happen.
    pub(crate) contributions: Vec<Vec<Contribution>>,
    /// Whether the last contribution multiplies by the slope of the node's own activation.
    pub(crate) activation_done: Vec<bool>,
}

impl Flow {
    pub(crate) fn new(graph: &Graph, schedule: &Schedule) -> Flow {
        let nodes = graph.nodes.len();
        let mut flow = Flow {
            order: Vec::new(),
            forward_at: vec![None; nodes],
            backward_at: vec![None; nodes],
            contributions: vec![Vec::new(); nodes],
            activation_done: vec![false; nodes],
        };
        flow.order_steps(graph, schedule);
        flow.find_contributions(graph, schedule);
        flow.fuse_masks(graph);
        flow
    }

    fn order_steps(&mut self, graph: &Graph, s: &Schedule) {
        let ops = |i: &usize| s.live[*i] && matches!(graph.nodes[*i].kind, Kind::Op { .. });
        for moment in 0..=2 * s.phases {
            let (number, at_a_join) = (moment / 2, moment % 2 == 0);
            let here = |i: &usize| runs_once(graph, *i) == at_a_join && ops(i);
            let forward = (0..graph.nodes.len()).filter(here).filter(|&i| s.forward[i] == number);
            let mut steps: Vec<(usize, bool)> = forward.map(|i| (i, false)).collect();
            if let Some(p) = number.checked_sub(s.last_forward) {
                let backward =
                    (0..graph.nodes.len()).rev().filter(here).filter(|&i| s.backward[i] == Some(p));
                steps.extend(backward.map(|i| (i, true)));
            }
            for (position, &(node, backward)) in steps.iter().enumerate() {
                let at = if backward { &mut self.backward_at } else { &mut self.forward_at };
                at[node] = Some((moment, position));
            }
            self.order.push(steps);
        }
    }

    fn find_contributions(&mut self, graph: &Graph, schedule: &Schedule) {
        for (moment, steps) in self.order.iter().enumerate() {
            let backward = steps.iter().enumerate().filter(|(_, (_, backward))| *backward);
            for (position, &(consumer, _)) in backward {
                for (input, &v) in op_of(graph, consumer).1.iter().enumerate() {
                    if schedule.contributes(graph, consumer, v) {
                        let (root, from) = graph.root(v);
                        self.contributions[root.index()].push(Contribution {
                            at: (moment, position),
                            consumer,
                            input,
                            columns: from..from + graph.cols(v),
                            mask: None,
                        });
                    }
                }
            }
        }
    }

    /// Lets the last op that adds to an activated value's gradient multiply by the activation's slope in passing. Not
    /// where the gradient is kept for a caller, who wants that of the output, nor where it is summed over lanes.
    fn fuse_masks(&mut self, graph: &Graph) {
        for (root, node) in graph.nodes.iter().enumerate().filter(|(_, n)| n.shape.space != Space::Once) {
            let Kind::Op { op, .. } = &node.kind else { continue };
            let Some((activation, columns)) = op.activated() else { continue };
            let last = self.contributions[root].iter_mut().rfind(|c| overlap(&c.columns, &columns));
            let Some(last) = last else { continue };
            let masks = op_of(graph, last.consumer).0.masks(last.input) && !op.keeps_output_gradient();
            if last.columns == columns && masks {
                last.mask = Some(activation);
                self.activation_done[root] = true;
            }
        }
    }

    /// The moments at which the forward value of `root`, an op, is written or read.
    pub(crate) fn value_moments(&self, graph: &Graph, schedule: &Schedule, root: usize) -> Vec<Moment> {
        let mut moments: Vec<Moment> = self.forward_at[root].into_iter().collect();
        if op_of(graph, root).0.saved().output {
            moments.extend(self.backward_at[root]);
        }
        moments.extend(self.contributions[root].iter().filter(|c| c.mask.is_some()).map(|c| c.at));
        for (consumer, node) in graph.nodes.iter().enumerate().filter(|(i, _)| schedule.live[*i]) {
            let Kind::Op { op, inputs } = &node.kind else { continue };
            for (i, _) in inputs.iter().enumerate().filter(|(_, v)| graph.root(**v).0.index() == root) {
                moments.extend(self.forward_at[consumer]);
                if op.saved().has_input(i) {
                    moments.extend(self.backward_at[consumer]);
                }
            }
        }
        moments
    }

    /// The moments at which the gradient of `root` is written or read.
    pub(crate) fn gradient_moments(&self, root: usize) -> Vec<Moment> {
        self.contributions[root].iter().map(|c| c.at).chain(self.backward_at[root]).collect()
    }

    /// The moments at which what the forward step leaves for the backward step is written or read.
    pub(crate) fn extra_moments(&self, node: usize) -> Vec<Moment> {
        self.forward_at[node].into_iter().chain(self.backward_at[node]).collect()
    }
}

/// Whether contributions, in order, either repeat columns already covered or add new ones, and cover all in the end:
/// then each column's first contribution can overwrite.
pub(crate) fn disjoint_cover(all: &[Contribution], cols: usize) -> bool {
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

pub(crate) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}
