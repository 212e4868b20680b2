//! Weights that a small network generates from a condition: for each scenario once, or for each sample.
//!
//! A condition z `[scenarios, width]` exists once, and so do the weights: a row is multiplied by those of its scenario.
//! A condition `[batch, width]` gives every row weights of its own. With prefix P the generator is
//! `P.<i>.{weight,bias}`: activated hidden layers, and a bare last one, whose values are read in parts, each row-major
//! `[out, in]`.

use super::mlp::{MlpStyle, mlp};
use super::scenario::rows_of;
use manygate_core::Result;
use manygate_graph::ops::{Linear, RowLinear, WeightPart};
use manygate_graph::{Block, Graph, Init, ParamSpec, Space, Value};
use manygate_kernels::activation::Activation;

/// What a generator gave.
#[derive(Clone, Copy, Debug)]
pub struct Generated {
    /// `[scenarios, len]` or `[batch, len]`.
    values: Value,
    scenarios: Option<usize>,
}

/// How the last layer of a generator starts.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its weight.
    pub weight: Init,
    /// Its bias: what is generated before anything is learnt.
    pub bias: Init,
}

/// A layer over generated weights.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Place of the first weight.
    pub from: usize,
    /// Units.
    pub out: usize,
    /// Place of the first bias, where biases are generated as well.
    pub bias: Option<usize>,
    /// What it ends in.
    pub activation: Activation,
}

impl Part {
    /// `out` units of weights from place `from` on, without a bias and an activation.
    pub fn bare(from: usize, out: usize) -> Part {
        Part { from, out, bias: None, activation: Activation::Identity }
    }
}

impl Generated {
    /// `len` values of condition `z`. Nothing is dropped inside: a value would be missing in many weights at once.
    ///
    /// # Errors
    /// When a width is 0 or a name is taken.
    pub fn new(
        g: &mut Graph,
        prefix: &str,
        z: Value,
        hidden: MlpStyle<'_>,
        len: usize,
        start: Start,
    ) -> Result<Generated> {
        let shape = g.shape(z);
        let scenarios = (shape.space == Space::Once).then_some(shape.rows);
        let top = mlp(g, prefix, z, MlpStyle { batch_norm: false, dropout: 0.0, ..hidden })?;
        let last = format!("{prefix}.{}", hidden.units.len());
        let weight = Block::weight(format!("{last}.weight"), len, g.cols(top), start.weight);
        let weight = g.param(ParamSpec::new(vec![weight])?)?;
        let bias = g.param(ParamSpec::new(vec![Block::vector(format!("{last}.bias"), len, start.bias)])?)?;
        let values = g.add(last, Linear::new(len, true, Activation::Identity), &[top, weight, bias])?;
        Ok(Generated { values, scenarios })
    }

    /// act(W x + b) of generated W `[part.out, width of x]` and b: `[batch, part.out]`.
    ///
    /// # Errors
    /// When there are fewer values, or a name is taken.
    pub fn product(&self, g: &mut Graph, name: &str, x: Value, part: Part) -> Result<Value> {
        let Part { from, out, bias, activation } = part;
        let input = g.cols(x);
        if let Some(scenarios) = self.scenarios {
            let layer = Linear::new(out, bias.is_some(), activation).by_scenario(scenarios);
            let weight = WeightPart::new(from, out, input);
            let mut inputs = vec![x, g.add(format!("{name}.weight"), weight, &[self.values])?];
            if let Some(from) = bias {
                inputs.push(g.add(format!("{name}.bias"), WeightPart::new(from, out, 1), &[self.values])?);
            }
            return g.add(name, layer, &inputs);
        }
        let mut inputs = vec![x, g.columns(self.values, from, out * input)?];
        if let Some(from) = bias {
            inputs.push(g.columns(self.values, from, out)?);
        }
        g.add(name, RowLinear::new(1, out, bias.is_some(), activation), &inputs)
    }

    /// x M of a generated M `[width of x, out]`, as papers with rows for vectors write it: `[batch, out]`.
    ///
    /// # Errors
    /// When there are fewer values, or the name is taken.
    pub fn product_from_left(&self, g: &mut Graph, name: &str, x: Value, out: usize) -> Result<Value> {
        let input = g.cols(x);
        if let Some(scenarios) = self.scenarios {
            let weight = WeightPart::new(0, out, input).transposed();
            let weight = g.add(format!("{name}.weight"), weight, &[self.values])?;
            let product = Linear::new(out, false, Activation::Identity).by_scenario(scenarios);
            return g.add(name, product, &[x, weight]);
        }
        let product = RowLinear::new(1, out, false, Activation::Identity).transposed();
        let matrix = g.columns(self.values, 0, out * input)?;
        g.add(name, product, &[x, matrix])
    }

    /// The values from place `from` on, for each row: `[batch, len]`.
    ///
    /// # Errors
    /// When there are fewer values, or the name is taken.
    pub fn vector(&self, g: &mut Graph, name: &str, from: usize, len: usize) -> Result<Value> {
        match self.scenarios {
            Some(scenarios) => {
                let of_scenarios =
                    g.add(format!("{name}.part"), WeightPart::new(from, 1, len), &[self.values])?;
                rows_of(g, name, scenarios, of_scenarios)
            }
            None => g.columns(self.values, from, len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manygate_core::{Batch, Serial};
    use manygate_graph::ops::MeanSquare;
    use manygate_graph::{
        Draws, Input, LossPart, Mode, Over, Parameters, Plan, PlanOptions, RowOrder, Shape, Workspace,
    };
    use manygate_kernels::embedding::Rows;
    use std::sync::Arc;

    const SCENARIOS: usize = 3;

    /// `(x M) w` of a generated M `[4, 5]`, by scenario or by sample.
    fn graph(once: bool) -> Graph {
        let mut g = Graph::new(Mode::Training);
        let mut matrix = |name: &str, rows: usize, cols: usize| {
            g.param(ParamSpec::new(vec![Block::weight(name, rows, cols, Init::Normal(0.7))]).unwrap())
                .unwrap()
        };
        let (x, z, w) = (matrix("x", SCENARIOS, 4), matrix("scene.weight", SCENARIOS, 2), matrix("w", 1, 5));
        let x = rows_of(&mut g, "x.rows", SCENARIOS, x).unwrap();
        let z = if once { z } else { rows_of(&mut g, "z.rows", SCENARIOS, z).unwrap() };
        let hidden = MlpStyle { units: &[6], activation: Activation::Tanh, batch_norm: false, dropout: 0.0 };
        let start = Start { weight: Init::Normal(0.5), bias: Init::Normal(0.5) };
        let generated = Generated::new(&mut g, "hyper", z, hidden, 20, start).unwrap();
        let shape = if once { Shape::once(SCENARIOS, 20) } else { Shape::batch(20) };
        assert_eq!(g.shape(generated.values), shape, "what is generated");
        let y = generated.product_from_left(&mut g, "y", x, 5).unwrap();
        let number = g.add("number", Linear::new(1, false, Activation::Identity), &[y, w]).unwrap();
        let loss = g.loss(LossPart::new("square", 1.0, Over::Rows)).unwrap();
        g.add("loss", MeanSquare::new(loss), &[number]).unwrap();
        g.output("number", number);
        g
    }

    /// The numbers of the rows, in their order, and the gradients.
    fn run(once: bool, batch: &Batch) -> Vec<f32> {
        let plan =
            Plan::compile(graph(once), PlanOptions { outputs: true, ..PlanOptions::default() }).unwrap();
        let params = Parameters::initial(Arc::clone(plan.layout()), 7);
        let state = Parameters::initial(Arc::clone(plan.state_layout()), 7);
        let mut order = RowOrder::default();
        let arranged = order.arrange(&plan, batch).unwrap();
        let mut ws = Workspace::new(&plan, 1, batch.rows);
        plan.pack(&Serial, &mut ws, &params);
        let tables: Vec<Rows<'_>> = Vec::new();
        let input = Input {
            params: &params,
            state: &state,
            tables: &tables,
            batch: arranged.batch,
            seeds: &[1.0],
            draws: Draws::default(),
        };
        plan.run(&Serial, &mut ws, &input).unwrap();
        let numbers = plan.output(&ws, "number").unwrap();
        let scenarios = &arranged.batch.scenario;
        let mut by_scenario: Vec<(u32, f32)> =
            (0..batch.rows).map(|r| (scenarios[r], numbers.row(r)[0])).collect();
        by_scenario.sort_by_key(|(scenario, _)| *scenario);
        by_scenario.iter().map(|(_, v)| *v).chain(plan.gradients(&ws).row(0).iter().copied()).collect()
    }

    #[test]
    fn generated_once_a_scenario_or_for_each_of_its_samples_is_the_same() {
        let scenario = (0..17).map(|r| r * 5 % 7 % SCENARIOS as u32).collect();
        let batch = Batch { rows: 17, scenario, ..Batch::default() };
        let (once, each) = (run(true, &batch), run(false, &batch));
        assert_eq!(once.len(), each.len());
        for (i, (a, b)) in once.iter().zip(&each).enumerate() {
            assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "[{i}]: {a} and {b}");
        }
    }
}
