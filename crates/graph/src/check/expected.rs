//! The numbers of a check: inputs, and what the reference makes of them.

use super::{Case, InputSpec, LONGEST};
use crate::draws::Draws;
use crate::graph::{Graph, LossPart, Mode, Value};
use crate::op::{LookupSource, Matrix, Op, Reads};
use crate::param::{Block, Init, ParamSpec};
use crate::plan::op_of;
use crate::shape::{Shape, Space};
use manygate_core::{Bag, Batch, Result, Stream};
use manygate_kernels::activation::Activation;
use std::ops::Range;
use std::sync::Arc;

/// The activation that inputs end in, in half of the settings; and where values are those of bf16, one that gives such.
const ACTIVATION: Activation = Activation::Tanh;
const ACTIVATION_OF_HALVES: Activation = Activation::LeakyRelu(0.25);

/// Most elements of a tensor whose gradient is compared.
const SAMPLES: usize = 160;

/// Half the distance of central differences.
pub(super) const STEP: f64 = 1e-5;

/// Gradients of some elements: index, value.
pub(super) type Sampled = Vec<(usize, f64)>;

/// One set of numbers for a case.
pub(super) struct Data {
    pub(super) rows: usize,
    /// What inputs end in, in half of the settings.
    pub(super) activation: Activation,
    /// By input: the values before `activation`, which are the input itself where there is none.
    pub(super) raw: Vec<Matrix>,
    /// By input: what the op sees.
    pub(super) seen: Vec<Matrix>,
    pub(super) tables: Vec<Vec<f32>>,
    pub(super) batch: Batch,
    /// The caller's rows: from the last to the first, or empty where they were not moved.
    caller_rows: Vec<u32>,
    /// Weights of the output in the loss; [`None`] for an op that is a loss itself.
    pub(super) output_weights: Option<Arc<[f32]>>,
    /// The op's own part of the loss.
    pub(super) own_part: Option<LossPart>,
    /// By input: weights with which another op reads it.
    pub(super) other_weights: Vec<Arc<[f32]>>,
    pub(super) output: Matrix,
    /// Whether the op makes a value for each scenario, of which the batch has not all: an evaluation plan computes
    /// what the reference leaves out.
    pub(super) lacks_scenarios: bool,
    /// Columns of the output that end in an activation.
    pub(super) activated: Option<Range<usize>>,
    /// Sum of the output, weighted.
    pub(super) loss: f64,
    /// By input: gradients at what the op sees.
    pub(super) gradients: Vec<Sampled>,
    /// By table.
    pub(super) table_gradients: Vec<Sampled>,
}

/// Adds an input as a parameter or as values without a gradient.
fn declare_plainly(g: &mut Graph, i: usize, spec: InputSpec) -> Result<Value> {
    match spec.once {
        Some(rows) => g.param(param(i, rows, spec.cols)?),
        None => {
            let source = super::helpers::Source { values: Arc::new([]), cols: spec.cols, bag: spec.bag };
            g.add(format!("source.{i}"), source, &[])
        }
    }
}

/// The parameter that stands for input `i`.
pub(super) fn param(i: usize, rows: usize, cols: usize) -> Result<ParamSpec> {
    ParamSpec::new(vec![Block::weight(input_name(i), rows, cols, Init::Constant(0.0))])
}

/// What input `i` is called, as a parameter or as a tap.
pub(super) fn input_name(i: usize) -> String {
    format!("input.{i}")
}

/// The graph of the op alone, and its output.
pub(super) fn alone(case: &Case) -> Result<(Graph, Value)> {
    let mut g = Graph::new(Mode::Training);
    super::declare_sequences(&mut g, &case.inputs)?;
    let inputs: Vec<Value> =
        (0..case.inputs.len()).map(|i| declare_plainly(&mut g, i, case.inputs[i])).collect::<Result<_>>()?;
    let output = (case.declare)(&mut g, &inputs)?;
    Ok((g, output))
}

/// Whether a value has rows: only then does the op above multiply by a slope.
fn rows_of(graph: &Graph, value: Value) -> bool {
    graph.shape(value).space != Space::Once
}

impl Data {
    /// Made-up numbers for `rows` rows, which stand in another order than the caller's where they were `moved`. With `halves`
    /// they are what bf16 holds, so that it takes no other side of a bend than the reference.
    pub(super) fn new(
        case: &Case,
        rows: usize,
        activated: bool,
        moved: bool,
        halves: bool,
    ) -> std::result::Result<Data, String> {
        let (graph, output) = alone(case).map_err(|e| e.to_string())?;
        let (root, from) = graph.root(output);
        let (op, _) = op_of(&graph, root.index());
        if from != 0 || graph.shape(root) != graph.shape(output) {
            return Err("the case must return the op's whole output".into());
        }
        let mut random = Random { stream: Stream::new(7, rows as u64, 0), next: 0, halves };
        let lists = case.inputs.iter().filter_map(|spec| spec.bag).map(|bag| bag + 1).max().unwrap_or(0);
        let batch = random.batch(op, &graph, rows, lists);
        let raw: Vec<Matrix> = case.inputs.iter().map(|spec| random.matrix(spec, &batch)).collect();
        let activation = if halves { ACTIVATION_OF_HALVES } else { ACTIVATION };
        let seen = |(spec, raw)| see(spec, raw, if activated { activation } else { Activation::Identity });
        let seen = case.inputs.iter().zip(&raw).map(seen).collect();
        let tables: Vec<Vec<f32>> =
            graph.tables.iter().map(|t| random.values(t.rows * t.dim, (-1.0, 1.0))).collect();
        let mut data = Data {
            rows,
            activation,
            raw,
            seen,
            tables,
            batch,
            caller_rows: if moved { (0..rows as u32).rev().collect() } else { Vec::new() },
            output_weights: None,
            own_part: op.loss().map(|l| graph.losses[l.index()].clone()),
            other_weights: Vec::new(),
            output: Matrix::zeros(0, 0),
            lacks_scenarios: false,
            activated: rows_of(&graph, output).then(|| op.activated()).flatten().map(|(_, columns)| columns),
            loss: 0.0,
            gradients: Vec::new(),
            table_gradients: Vec::new(),
        };
        for input in &data.raw {
            data.other_weights.push(random.values(input.data.len(), (-1.0, 1.0)).into());
        }
        let Shape { cols, space, .. } = graph.shape(root);
        let present = |s: usize| data.batch.scenario.contains(&(s as u32));
        data.lacks_scenarios = space == Space::Once && !(0..op.reads().scenarios.unwrap_or(0)).all(present);
        let tables = data.table_matrices(&graph);
        data.output = op.reference_drawn(&data.seen, &tables, &data.batch, &data.draws());
        let wanted = if data.own_part.is_some() { 1 } else { cols };
        if data.output.cols != wanted || data.output.data.len() != data.output.rows * wanted {
            return Err(format!("the reference is {} wide, the output {wanted}", data.output.cols));
        }
        if data.own_part.is_none() {
            data.output_weights = Some(random.values(data.output.data.len(), (-1.0, 1.0)).into());
        }
        data.loss = data.weighted(&data.output);
        data.differentiate(op, tables);
        Ok(data)
    }

    pub(super) fn table_matrices(&self, graph: &Graph) -> Vec<Matrix> {
        graph.tables.iter().zip(&self.tables).map(|(t, v)| wide(v, t.dim)).collect()
    }

    /// What random numbers are keyed by.
    pub(super) fn draws(&self) -> Draws<'_> {
        Draws { seed: 5, step: 3, caller_rows: &self.caller_rows }
    }

    /// Σ w · y, or the sum of a loss's terms, weighted by scenario.
    fn weighted(&self, output: &Matrix) -> f64 {
        if let Some(weights) = &self.output_weights {
            return output.data.iter().zip(&**weights).map(|(y, &w)| y * f64::from(w)).sum();
        }
        let weights = self.own_part.as_ref().map_or(&[][..], |part| &part.scenario_weights);
        let weight = |row: usize| self.batch.scenario.get(row).and_then(|&s| weights.get(s as usize));
        let terms = output.data.iter().enumerate();
        terms.map(|(row, term)| term * weight(row).map_or(1.0, |&w| f64::from(w))).sum()
    }

    fn differentiate(&mut self, op: &dyn Op, tables: Vec<Matrix>) {
        let scale = self.own_part.as_ref().map_or(1.0, |part| f64::from(part.weight));
        let mut both = [self.seen.clone(), tables];
        let mut gradients = [Vec::new(), Vec::new()];
        for kind in 0..both.len() {
            for i in 0..both[kind].len() {
                let mut sampled = Sampled::new();
                for at in samples(both[kind][i].data.len()) {
                    let here = both[kind][i].data[at];
                    let mut side = |step: f64| {
                        both[kind][i].data[at] = here + step;
                        self.weighted(&op.reference_drawn(&both[0], &both[1], &self.batch, &self.draws()))
                    };
                    sampled.push((at, scale * (side(STEP) - side(-STEP)) / (2.0 * STEP)));
                    both[kind][i].data[at] = here;
                }
                gradients[kind].push(sampled);
            }
        }
        [self.gradients, self.table_gradients] = gradients;
    }

    /// The derivative of the activation that input `i` ends in, at its value number `at`.
    pub(super) fn slope(&self, i: usize, at: usize) -> f64 {
        let raw = self.raw[i].data[at];
        match self.activation {
            Activation::LeakyRelu(slope) if raw <= 0.0 => slope.into(),
            Activation::LeakyRelu(_) => 1.0,
            other => 1.0 - crate::op::activate_f64(other, raw).powi(2),
        }
    }

    /// The factor with which a loss part's sum is what is differentiated.
    pub(super) fn seed(&self, part: &LossPart) -> f32 {
        let mut divisors = vec![1.0; part.groups()];
        part.find_divisors(&self.batch, &mut divisors);
        let weights = part.scenario_weights.iter().copied().chain([1.0]);
        let whole = divisors.iter().zip(weights).find(|(divisor, _)| divisor.is_finite());
        whole.map_or(1.0, |(divisor, weight)| (divisor * f64::from(weight)) as f32)
    }
}

/// Indices to compare of a tensor of `len` values: all, or some in no pattern.
fn samples(len: usize) -> impl Iterator<Item = usize> {
    (0..len.min(SAMPLES)).map(move |i| if len <= SAMPLES { i } else { i * 7919 % len })
}

fn see(spec: &InputSpec, raw: &Matrix, activation: Activation) -> Matrix {
    let mut seen = raw.clone();
    if spec.once.is_none() {
        seen.data.iter_mut().for_each(|v| *v = crate::op::activate_f64(activation, *v));
    }
    seen
}

/// The nearest value that bf16 holds, of two the even one.
fn half(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

fn wide(values: &[f32], cols: usize) -> Matrix {
    Matrix { rows: values.len() / cols, cols, data: values.iter().copied().map(f64::from).collect() }
}

/// Made-up numbers.
struct Random {
    stream: Stream,
    next: u64,
    /// Whether values are those that bf16 holds.
    halves: bool,
}

impl Random {
    fn unit(&mut self) -> f32 {
        self.next += 1;
        self.stream.uniform(self.next, 0)
    }

    fn below(&mut self, below: usize) -> u32 {
        self.next += 1;
        self.stream.below(self.next, 0, below as u64) as u32
    }

    fn values(&mut self, len: usize, (from, to): (f32, f32)) -> Vec<f32> {
        let halves = self.halves;
        let values = (0..len).map(|_| from + (to - from) * self.unit());
        values.map(|value| if halves { half(value) } else { value }).collect()
    }

    fn matrix(&mut self, spec: &InputSpec, batch: &Batch) -> Matrix {
        let samples = spec.bag.map_or(batch.rows, |bag| batch.bags[bag].ids.len());
        wide(&self.values(spec.once.unwrap_or(samples) * spec.cols, spec.range), spec.cols)
    }

    /// A batch with the columns that the op reads, and `lists` lists; ids fit the tables that it looks them up in.
    fn batch(&mut self, op: &dyn Op, graph: &Graph, rows: usize, lists: usize) -> Batch {
        let Reads { fields, bags, dense, labels, mut scenarios, mut by_scenario } = op.reads();
        let weights = op.loss().map_or(0, |part| graph.losses[part.index()].scenario_weights.len());
        if weights > 0 {
            (scenarios, by_scenario) = (Some(weights), true);
        }
        let ids = |source: LookupSource| {
            let tables =
                op.lookups().iter().filter(|l| l.source == source).map(|l| graph.tables[l.table].rows);
            tables.min().unwrap_or(10)
        };
        let dense_width = dense.unwrap_or(0);
        Batch {
            rows,
            ids: (0..fields)
                .map(|f| (0..rows).map(|_| self.below(ids(LookupSource::Field(f)))).collect())
                .collect(),
            bags: (0..bags.max(lists))
                .map(|b| self.bag(rows, ids(LookupSource::Bag(b)).min(ids(LookupSource::Positions(b)))))
                .collect(),
            dense: self.values(rows * dense_width, (-1.0, 1.0)),
            dense_width,
            scenario: scenarios.map_or(Vec::new(), |s| self.scenarios(rows, s, by_scenario)),
            labels: (0..labels).map(|_| (0..rows).map(|_| self.unit().round()).collect()).collect(),
        }
    }

    fn scenarios(&mut self, rows: usize, count: usize, in_order: bool) -> Vec<u32> {
        let mut scenario: Vec<u32> = (0..rows).map(|_| self.below(count)).collect();
        if in_order {
            scenario.sort_unstable();
        }
        scenario
    }

    /// Lists of 0 to [`LONGEST`] ids.
    fn bag(&mut self, rows: usize, below: usize) -> Bag {
        let mut bag = Bag { offsets: vec![0], ids: Vec::new() };
        for _ in 0..rows {
            let len = self.below(LONGEST + 1);
            bag.ids.extend((0..len).map(|_| self.below(below)));
            bag.offsets.push(bag.ids.len() as u32);
        }
        bag
    }
}
