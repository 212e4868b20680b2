//! The gradients of a whole plan against finite differences of its ops' references.

use super::expected::Sampled;
use super::found::{Rounding, compare, compare_above, scatter};
use super::on_cpu::{flat, lane_sum};
use crate::graph::{Kind, Value};
use crate::op::Matrix;
use crate::param::{Layout, Parameters};
use crate::plan::Plan;
use crate::run::Input;
use crate::workspace::Workspace;
use manygate_core::Executor;

/// Most elements of a tensor whose gradient is compared.
const SAMPLES: usize = 12;

/// Half the distance of central differences. Two norms over two rows each bend so much that 1e-5 would miss the slope.
const STEP: f64 = 1e-6;

/// What rounding may leave of a gradient that is 0, as that of a bias below a norm: of few rows, a norm multiplies it by up
/// to 1 / √ε, which is 316.
const NOISE: Rounding = Rounding { noise: 5e-6, ..Rounding::F32 };

/// Runs `plan` and compares it with its [`PlanReference`].
///
/// # Errors
/// A message with the first value that is wrong, or why the plan cannot run.
pub fn check_plan(plan: &Plan, exec: &dyn Executor, input: &Input<'_>) -> Result<(), String> {
    PlanReference::new(plan, input).check(plan, exec, input)
}

/// What the references of a plan's ops give, in f64: losses, outputs, and by central differences the gradients of
/// parameters, tables and taps (some elements of each). For small models and batches: each element takes two evaluations
/// of the whole batch. It does not depend on the instruction set, on tiles, lanes or threads, so that one serves for all.
#[derive(Debug)]
pub struct PlanReference {
    losses: Vec<f64>,
    outputs: Vec<(String, Matrix)>,
    /// By block of the layout, by table, by tap.
    parameters: Vec<Sampled>,
    tables: Vec<Sampled>,
    taps: Vec<Sampled>,
}

impl PlanReference {
    /// The reference of `plan` for this input.
    pub fn new(plan: &Plan, input: &Input<'_>) -> PlanReference {
        let mut numbers = Numbers::new(plan, input);
        let value =
            |&(ref name, value): &(String, Value)| (name.clone(), numbers.values[value.index()].clone());
        let mut reference = PlanReference {
            losses: losses(plan, input, &numbers.values),
            outputs: plan.graph.outputs.iter().map(value).collect(),
            parameters: Vec::new(),
            tables: Vec::new(),
            taps: Vec::new(),
        };
        if plan.graph.is_training() {
            reference.parameters = numbers.parameter_gradients(plan, input);
            reference.tables = numbers.table_gradients(plan, input);
            reference.taps = numbers.tap_gradients(plan, input);
        }
        reference
    }

    /// Runs `plan`, the one that this is the reference of or the same with other options, and compares.
    ///
    /// # Errors
    /// A message with the first value that is wrong, or why the plan cannot run.
    pub fn check(&self, plan: &Plan, exec: &dyn Executor, input: &Input<'_>) -> Result<(), String> {
        let gradients = match plan.graph.is_training() {
            true => [plan.layout().blocks().count(), plan.tables().len(), plan.taps.len()],
            false => [0; 3],
        };
        let expected = [self.parameters.len(), self.tables.len(), self.taps.len()];
        let another = || "this is the reference of another plan".to_owned();
        if self.losses.len() != plan.losses().len() || gradients != expected {
            return Err(another());
        }
        let mut ws = Workspace::new(plan, exec.threads(), input.batch.rows);
        plan.pack(exec, &mut ws, input.params);
        ws.spoil();
        plan.run(exec, &mut ws, input).map_err(|e| e.to_string())?;
        for ((part, &loss), &expected) in plan.losses().iter().zip(ws.part_losses()).zip(&self.losses) {
            if loss.is_nan() || (loss - expected).abs() > 1e-5 * expected.abs().max(1.0) {
                return Err(format!("the loss of {} is {loss}, the reference's {expected}", part.name));
            }
        }
        for name in plan.output_names() {
            let found = plan.output(&ws, name).map_err(|e| e.to_string())?;
            let (_, value) = self.outputs.iter().find(|(n, _)| n == name).ok_or_else(another)?;
            let expected: Sampled = value.data.iter().copied().enumerate().collect();
            compare(&format!("output {name}"), &flat(found), &expected)?;
        }
        let gradient = |name: &str, found: &[f32], expected| {
            compare_above(NOISE, &format!("gradient of {name}"), found, expected)
        };
        for ((block, range), expected) in plan.layout().blocks().zip(&self.parameters) {
            gradient(&block.name, &lane_sum(plan, &ws, range), expected)?;
        }
        if !self.tables.is_empty() {
            let found = scatter(plan, input.batch, |source| flat(plan.sparse_gradient(&ws, source)));
            for ((spec, found), expected) in plan.tables().iter().zip(&found).zip(&self.tables) {
                gradient(&spec.name, found, expected)?;
            }
        }
        for ((name, _), expected) in plan.taps.iter().zip(&self.taps) {
            let found = flat(plan.tapped_gradient(&ws, name).map_err(|e| e.to_string())?);
            gradient(&format!("tap {name}"), &found, expected)?;
        }
        Ok(())
    }
}

fn samples(len: usize) -> impl Iterator<Item = usize> {
    (0..len.min(SAMPLES)).map(move |i| if len <= SAMPLES { i } else { i * 7919 % len })
}

/// Everything that the losses are a function of, in f64.
struct Numbers {
    params: Vec<f64>,
    state: Vec<f64>,
    tables: Vec<Matrix>,
    /// Added to an element of what a node gives: node, index, amount.
    shift: Option<(usize, usize, f64)>,
    /// What every node gives while no number is moved.
    values: Vec<Matrix>,
}

impl Numbers {
    fn new(plan: &Plan, input: &Input<'_>) -> Numbers {
        let wide = |p: &Parameters| p.values.iter().copied().map(f64::from).collect();
        let table = |t: usize| {
            let rows = input.tables.rows(t);
            let data = (0..rows.rows() as u32).flat_map(|r| rows.row(r)).copied().map(f64::from).collect();
            Matrix { rows: rows.rows(), cols: rows.dim(), data }
        };
        let tables = (0..plan.tables().len()).map(table).collect();
        let mut numbers = Numbers {
            params: wide(input.params),
            state: wide(input.state),
            tables,
            shift: None,
            values: Vec::new(),
        };
        numbers.values = numbers.values_where(plan, input, |_| true);
        numbers
    }

    fn parameter_gradients(&mut self, plan: &Plan, input: &Input<'_>) -> Vec<Sampled> {
        let mut gradients = Vec::new();
        for (p, tensors) in plan.layout().stacks().enumerate() {
            let moves = |kind: &Kind| matches!(kind, Kind::Param(of) if *of == p);
            for (block, range) in tensors {
                gradients.push(match plan.options.freezes(&block.name) {
                    true => zeros(range.len()),
                    false => self.slopes(plan, input, range.len(), moves, |n, at, step| {
                        n.params[range.start + at] += step;
                    }),
                });
            }
        }
        gradients
    }

    fn table_gradients(&mut self, plan: &Plan, input: &Input<'_>) -> Vec<Sampled> {
        let mut gradients = Vec::new();
        for (t, spec) in plan.tables().iter().enumerate() {
            let len = spec.rows * spec.dim;
            gradients.push(match plan.options.freezes(&spec.name) {
                true => zeros(len),
                // Any op may look a table up.
                false => self.slopes(plan, input, len, |_| true, |n, at, step| n.tables[t].data[at] += step),
            });
        }
        gradients
    }

    fn tap_gradients(&mut self, plan: &Plan, input: &Input<'_>) -> Vec<Sampled> {
        let mut gradients = Vec::new();
        for (name, _) in &plan.taps {
            let tapped = plan.graph.nodes.iter().position(|node| node.name == *name).unwrap_or(0);
            let len = self.values[tapped].data.len();
            gradients.push(self.slopes(
                plan,
                input,
                len,
                |_| false,
                |n, at, step| {
                    let before = n.shift.filter(|&(.., shifted, _)| shifted == at).map_or(0.0, |(.., by)| by);
                    n.shift = Some((tapped, at, before + step));
                },
            ));
            self.shift = None;
        }
        gradients
    }

    /// The derivatives of the seeded total loss by some of `len` numbers: `move_by` adds a step to one of them, `moves`
    /// tells which nodes it moves at once.
    fn slopes(
        &mut self,
        plan: &Plan,
        input: &Input<'_>,
        len: usize,
        moves: impl Fn(&Kind) -> bool,
        move_by: impl Fn(&mut Numbers, usize, f64),
    ) -> Sampled {
        let total = |numbers: &Numbers| -> f64 {
            let factors =
                plan.losses().iter().zip(input.seeds).map(|(part, &seed)| f64::from(seed * part.weight));
            let values = numbers.values_where(plan, input, &moves);
            losses(plan, input, &values).iter().zip(factors).map(|(loss, factor)| loss * factor).sum()
        };
        let mut slope = |at: usize| {
            move_by(self, at, STEP);
            let above = total(self);
            move_by(self, at, -STEP);
            move_by(self, at, -STEP);
            let below = total(self);
            move_by(self, at, STEP);
            (at, (above - below) / (2.0 * STEP))
        };
        samples(len).map(&mut slope).collect()
    }

    /// What every node gives after numbers were moved that `moves` these nodes, and what stands on them. Values through
    /// which no gradient flows stay what they are.
    fn values_where(&self, plan: &Plan, input: &Input<'_>, moves: impl Fn(&Kind) -> bool) -> Vec<Matrix> {
        let graph = &plan.graph;
        let mut values: Vec<Matrix> = Vec::with_capacity(graph.nodes.len());
        let mut moved = vec![false; graph.nodes.len()];
        for (i, node) in graph.nodes.iter().enumerate() {
            let stored = |numbers: &[f64], layout: &Layout, index: usize| {
                let start = layout.offset(index);
                let data = numbers[start..start + node.shape.len()].to_vec();
                Matrix { rows: node.shape.rows, cols: node.shape.cols, data }
            };
            let from_below = match &node.kind {
                Kind::Columns { of, stops_gradient, .. } => moved[of.index()] && !stops_gradient,
                Kind::Op { inputs, .. } => inputs.iter().any(|v| moved[v.index()]),
                Kind::Param(_) | Kind::State(_) => false,
            };
            let stops = matches!(node.kind, Kind::Columns { stops_gradient: true, .. });
            moved[i] = from_below || moves(&node.kind) && !stops;
            let mut value = match (&node.kind, self.values.get(i)) {
                (_, Some(value)) if !moved[i] => value.clone(),
                (Kind::Param(p), _) => stored(&self.params, &plan.layout, *p),
                (Kind::State(s), _) => stored(&self.state, &plan.state_layout, *s),
                (Kind::Columns { of, from, .. }, _) => columns(&values[of.index()], *from, node.shape.cols),
                (Kind::Op { op, inputs }, _) => {
                    let inputs: Vec<Matrix> = inputs.iter().map(|v| values[v.index()].clone()).collect();
                    op.reference_drawn(&inputs, &self.tables, input.batch, &input.draws)
                }
            };
            if let Some((_, at, amount)) = self.shift.filter(|&(node, ..)| node == i) {
                value.data[at] += amount;
                moved[i] = true;
            }
            values.push(value);
        }
        values
    }
}

/// Each part of the loss: the mean over its rows, or the sum of means.
fn losses(plan: &Plan, input: &Input<'_>, values: &[Matrix]) -> Vec<f64> {
    let mut losses = vec![0.0; plan.losses().len()];
    for (node, terms) in plan.graph.nodes.iter().zip(values) {
        if let Kind::Op { op, .. } = &node.kind
            && let Some(part) = op.loss()
        {
            let loss = &plan.losses()[part.index()];
            let mut divisors = vec![1.0; loss.groups()];
            loss.find_divisors(input.batch, &mut divisors);
            let means = terms.data.iter().enumerate();
            let means = means.map(|(row, term)| term / divisors[loss.group_of(input.batch, row)]);
            losses[part.index()] += means.sum::<f64>();
        }
    }
    losses
}

/// The gradient of what is frozen.
fn zeros(len: usize) -> Sampled {
    (0..len).map(|at| (at, 0.0)).collect()
}

fn columns(of: &Matrix, from: usize, count: usize) -> Matrix {
    let rows = (0..of.rows).map(|r| &of.data[r * of.cols + from..r * of.cols + from + count]);
    Matrix { rows: of.rows, cols: count, data: rows.flatten().copied().collect() }
}
