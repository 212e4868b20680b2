//! The gradients of a whole plan against finite differences of its ops' references.

use super::expected::Sampled;
use super::setting::{compare, compare_above, flat, lane_sum, scatter};
use crate::graph::Kind;
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
const NOISE: f64 = 5e-6;

/// Runs `plan` and compares its losses, its outputs, and the gradients of parameters, tables and taps (some elements of
/// each) with the references of its ops, in f64, and their central differences. For small models and batches: each
/// compared element takes two evaluations of the whole batch.
///
/// # Errors
/// A message with the first value that is wrong, or why the plan cannot run.
pub fn check_plan(plan: &Plan, exec: &dyn Executor, input: &Input<'_>) -> Result<(), String> {
    let mut ws = Workspace::new(plan, exec.threads(), input.batch.rows);
    plan.pack(exec, &mut ws, input.params);
    ws.spoil();
    plan.run(exec, &mut ws, input).map_err(|e| e.to_string())?;
    let mut numbers = Numbers::new(plan, input);
    let values = numbers.values(plan, input);
    for (part, expected) in numbers.losses(plan, input).into_iter().enumerate() {
        let loss = ws.part_losses()[part];
        if loss.is_nan() || (loss - expected).abs() > 1e-5 * expected.abs().max(1.0) {
            let name = &plan.losses()[part].name;
            return Err(format!("the loss of {name} is {loss}, the reference's {expected}"));
        }
    }
    for name in plan.output_names() {
        let found = plan.output(&ws, name).map_err(|e| e.to_string())?;
        let value = plan.graph.outputs.iter().find(|(n, _)| n == name).map(|&(_, v)| v.index());
        let expected = value.map(|v| values[v].data.iter().copied().enumerate().collect());
        compare(&format!("output {name}"), &flat(found), &expected.unwrap_or_default())?;
    }
    if !plan.graph.is_training() {
        return Ok(());
    }
    check_parameters(plan, &ws, input, &mut numbers)?;
    check_tables(plan, &ws, input, &mut numbers)?;
    check_taps(plan, &ws, input, &mut numbers)
}

fn check_parameters(
    plan: &Plan,
    ws: &Workspace,
    input: &Input<'_>,
    numbers: &mut Numbers,
) -> Result<(), String> {
    for (block, range) in plan.layout().blocks() {
        let found = lane_sum(plan, ws, range.clone());
        let slope = |at: usize| numbers.slope(plan, input, |n, step| n.params[range.start + at] += step);
        let expected: Sampled = match plan.options.freezes(&block.name) {
            false => samples(range.len()).map(slope_of(slope)).collect(),
            true => (0..range.len()).map(|at| (at, 0.0)).collect(),
        };
        compare_above(NOISE, &format!("gradient of {}", block.name), &found, &expected)?;
    }
    Ok(())
}

fn check_tables(plan: &Plan, ws: &Workspace, input: &Input<'_>, numbers: &mut Numbers) -> Result<(), String> {
    let found = scatter(plan, ws, input.batch);
    for (t, spec) in plan.tables().iter().enumerate() {
        let slope = |at: usize| numbers.slope(plan, input, |n, step| n.tables[t].data[at] += step);
        let expected: Sampled = match plan.options.freezes(&spec.name) {
            false => samples(spec.rows * spec.dim).map(slope_of(slope)).collect(),
            true => (0..spec.rows * spec.dim).map(|at| (at, 0.0)).collect(),
        };
        compare_above(NOISE, &format!("gradient of {}", spec.name), &found[t], &expected)?;
    }
    Ok(())
}

fn check_taps(plan: &Plan, ws: &Workspace, input: &Input<'_>, numbers: &mut Numbers) -> Result<(), String> {
    for (name, _) in &plan.taps {
        let found = flat(plan.tapped_gradient(ws, name).map_err(|e| e.to_string())?);
        let node = plan.graph.nodes.iter().position(|node| node.name == *name).unwrap_or(0);
        let slope = |at: usize| numbers.slope(plan, input, |n, step| n.shift_by(node, at, step));
        let expected: Sampled = samples(found.len()).map(slope_of(slope)).collect();
        numbers.shift = None;
        compare_above(NOISE, &format!("gradient of tap {name}"), &found, &expected)?;
    }
    Ok(())
}

/// Pairs an index with the slope there.
fn slope_of(mut slope: impl FnMut(usize) -> f64) -> impl FnMut(usize) -> (usize, f64) {
    move |at| (at, slope(at))
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
    /// By node: values through which no gradient flows, which stay what they are.
    fixed: Vec<Option<Matrix>>,
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
        let fixed = vec![None; plan.graph.nodes.len()];
        let mut numbers =
            Numbers { params: wide(input.params), state: wide(input.state), tables, shift: None, fixed };
        let stops = |kind: &Kind| matches!(kind, Kind::Columns { stops_gradient: true, .. });
        let values = numbers.values(plan, input).into_iter().zip(&plan.graph.nodes);
        numbers.fixed = values.map(|(value, node)| stops(&node.kind).then_some(value)).collect();
        numbers
    }

    fn shift_by(&mut self, node: usize, at: usize, step: f64) {
        let before = self.shift.map_or(0.0, |(.., amount)| amount);
        self.shift = Some((node, at, before + step));
    }

    /// The derivative of the seeded total loss along `move_by`, which adds a step to one number.
    fn slope(&mut self, plan: &Plan, input: &Input<'_>, move_by: impl Fn(&mut Numbers, f64)) -> f64 {
        let total = |numbers: &Numbers| -> f64 {
            let factors =
                plan.losses().iter().zip(input.seeds).map(|(part, &seed)| f64::from(seed * part.weight));
            numbers.losses(plan, input).iter().zip(factors).map(|(loss, factor)| loss * factor).sum()
        };
        move_by(self, STEP);
        let above = total(self);
        move_by(self, -STEP);
        move_by(self, -STEP);
        let below = total(self);
        move_by(self, STEP);
        (above - below) / (2.0 * STEP)
    }

    /// Each part of the loss: the mean over its rows, or the sum of means.
    fn losses(&self, plan: &Plan, input: &Input<'_>) -> Vec<f64> {
        let (values, batch) = (self.values(plan, input), input.batch);
        let mut losses = vec![0.0; plan.losses().len()];
        for (node, terms) in plan.graph.nodes.iter().zip(&values) {
            if let Kind::Op { op, .. } = &node.kind
                && let Some(part) = op.loss()
            {
                let loss = &plan.losses()[part.index()];
                let mut divisors = vec![1.0; loss.groups()];
                loss.find_divisors(batch, &mut divisors);
                let means = terms.data.iter().enumerate();
                let means = means.map(|(row, term)| term / divisors[loss.group_of(batch, row)]);
                losses[part.index()] += means.sum::<f64>();
            }
        }
        losses
    }

    /// What every node gives.
    fn values(&self, plan: &Plan, input: &Input<'_>) -> Vec<Matrix> {
        let graph = &plan.graph;
        let mut values: Vec<Matrix> = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate() {
            let stored = |numbers: &[f64], layout: &Layout, index: usize| {
                let start = layout.offset(index);
                let data = numbers[start..start + node.shape.len()].to_vec();
                Matrix { rows: node.shape.rows, cols: node.shape.cols, data }
            };
            let mut value = match (&node.kind, &self.fixed[i]) {
                (_, Some(fixed)) => fixed.clone(),
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
            }
            values.push(value);
        }
        values
    }
}

fn columns(of: &Matrix, from: usize, count: usize) -> Matrix {
    let rows = (0..of.rows).map(|r| &of.data[r * of.cols + from..r * of.cols + from + count]);
    Matrix { rows: of.rows, cols: count, data: rows.flatten().copied().collect() }
}
