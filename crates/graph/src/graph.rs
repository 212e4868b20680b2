//! The graph: a model declared once, with symbolic rows.

use crate::gate_view::GateView;
use crate::op::{MAX_INPUTS, Op};
use crate::param::{ParamSpec, TableSpec};
use crate::shape::{Shape, Space};
use manygate_core::{Batch, Error, Result};
use std::fmt;
use std::sync::Arc;

/// A value of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether something holds, or why not.
type Checked = std::result::Result<(), String>;

/// What the graph is declared for. Layers that behave differently in training (batch normalisation, dropout) look at
/// it; everything else is the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Losses and gradients.
    Training,
    /// Outputs alone; each row is computed by itself.
    Evaluation,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Training => "training",
            Mode::Evaluation => "evaluation",
        })
    }
}

/// What a part of the loss is the mean over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// All rows of the batch.
    Rows,
    /// The rows whose label of this task is 1.
    Labelled(usize),
    /// The rows of each scenario by themselves, and then the sum over scenarios: none outweighs the others by its rows.
    EachScenario {
        /// Number of scenarios.
        scenarios: usize,
        /// Of those rows, the ones whose label of this task is 1; all of them without.
        labelled: Option<usize>,
    },
    /// Nothing: it is taken as it is.
    Once,
}

impl Over {
    /// Number of means that are added.
    pub(crate) fn groups(self) -> usize {
        match self {
            Over::EachScenario { scenarios, .. } => scenarios,
            Over::Rows | Over::Labelled(_) | Over::Once => 1,
        }
    }

    /// The labels of a task that tell which rows count.
    pub(crate) fn labelled(self) -> Option<usize> {
        match self {
            Over::Labelled(task) => Some(task),
            Over::EachScenario { labelled, .. } => labelled,
            Over::Rows | Over::Once => None,
        }
    }
}

impl From<Option<usize>> for Over {
    /// The rows of a label space: those with the label, or all.
    fn from(space: Option<usize>) -> Over {
        space.map_or(Over::Rows, Over::Labelled)
    }
}

/// A named part of the training loss: weight · (sum over its rows) / (number of its rows).
#[derive(Clone, Debug, PartialEq)]
pub struct LossPart {
    /// Name, usually the task's.
    pub name: String,
    /// Weight in the total.
    pub weight: f32,
    /// The rows that count.
    pub over: Over,
    /// By scenario: how much its rows count beside those of the others; empty where all count the same. A mean over rows
    /// becomes the weighted mean `Σ ω ℓ / Σ ω`, a sum of means over scenarios `Σ ω_s mean_s`.
    pub scenario_weights: Vec<f32>,
}

impl LossPart {
    /// A part in which all scenarios count the same.
    pub fn new(name: impl Into<String>, weight: f32, over: impl Into<Over>) -> LossPart {
        LossPart { name: name.into(), weight, over: over.into(), scenario_weights: Vec::new() }
    }

    /// The same with [`scenario_weights`](LossPart::scenario_weights).
    pub fn weighing(self, scenario_weights: &[f32]) -> LossPart {
        LossPart { scenario_weights: scenario_weights.to_vec(), ..self }
    }

    /// Number of sums: of all rows, or of those of each scenario.
    pub(crate) fn groups(&self) -> usize {
        self.over.groups().max(self.scenario_weights.len())
    }

    /// The sum that a row adds to.
    pub(crate) fn group_of(&self, batch: &Batch, row: usize) -> usize {
        if self.groups() > 1 { batch.scenario[row] as usize } else { 0 }
    }

    /// What each sum is divided by before they are added up; infinite for a scenario without weight.
    pub(crate) fn find_divisors(&self, batch: &Batch, divisors: &mut [f64]) {
        divisors.fill(0.0);
        match (self.over, self.over.labelled()) {
            (Over::Once, _) => {}
            (Over::Rows, _) if divisors.len() == 1 => divisors[0] = batch.rows as f64,
            (_, labelled) => {
                let counts = |row: &usize| labelled.is_none_or(|task| batch.labels[task][*row] > 0.0);
                (0..batch.rows).filter(counts).for_each(|row| divisors[self.group_of(batch, row)] += 1.0);
            }
        }
        if !self.scenario_weights.is_empty() && !matches!(self.over, Over::EachScenario { .. }) {
            let weighted = divisors.iter().zip(&self.scenario_weights).map(|(n, &w)| n * f64::from(w));
            let total: f64 = weighted.sum();
            divisors.fill(if total > 0.0 { total } else { 1.0 });
        }
        // A mean over nothing is 0.
        divisors.iter_mut().filter(|divisor| **divisor == 0.0).for_each(|divisor| *divisor = 1.0);
        divisors.iter_mut().zip(&self.scenario_weights).for_each(|(divisor, &w)| *divisor /= f64::from(w));
    }

    fn check(&self) -> Checked {
        if self.over.groups() == 0 {
            return Err("a mean over each scenario needs at least one scenario".into());
        }
        if let Some(weight) = self.scenario_weights.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
            return Err(format!("{weight} is no weight of a scenario"));
        }
        match (self.over, self.scenario_weights.len()) {
            (_, 0) | (Over::Rows | Over::Labelled(_), _) => Ok(()),
            (Over::EachScenario { scenarios, .. }, weights) if weights == scenarios => Ok(()),
            (over, weights) => Err(format!("{weights} weights of scenarios do not fit {over:?}")),
        }
    }
}

/// A loss part of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossId(pub(crate) usize);

impl LossId {
    /// Position among the graph's loss parts.
    pub fn index(self) -> usize {
        self.0
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Op { op: Arc<dyn Op>, inputs: Vec<Value> },
    Param(usize),
    State(usize),
    Columns { of: Value, from: usize, stops_gradient: bool },
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
}

/// Most values of a parameter (8 GiB): a mistyped width ends in an error, not in an allocation that aborts.
const MAX_VALUES: u128 = 1 << 31;

/// A model as a graph of fused operations. Nothing is computed while it is built.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) mode: Mode,
    pub(crate) nodes: Vec<Node>,
    pub(crate) params: Vec<ParamSpec>,
    pub(crate) states: Vec<ParamSpec>,
    pub(crate) tables: Vec<TableSpec>,
    pub(crate) losses: Vec<LossPart>,
    pub(crate) outputs: Vec<(String, Value)>,
    pub(crate) gates: Vec<GateView>,
    /// Values whose units stand for nothing, see [`Graph::exchangeable`].
    pub(crate) exchangeable: Vec<Value>,
    /// Lists whose ids have rows of their own, and the most ids a sample.
    pub(crate) sequences: Vec<(usize, usize)>,
}

impl Graph {
    /// An empty graph.
    pub fn new(mode: Mode) -> Graph {
        Graph {
            mode,
            nodes: Vec::new(),
            params: Vec::new(),
            states: Vec::new(),
            tables: Vec::new(),
            losses: Vec::new(),
            outputs: Vec::new(),
            gates: Vec::new(),
            exchangeable: Vec::new(),
            sequences: Vec::new(),
        }
    }

    /// Whether it is declared for training.
    pub fn is_training(&self) -> bool {
        self.mode == Mode::Training
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        self.nodes[value.index()].shape
    }

    /// The width of a value: values a row.
    pub fn cols(&self, value: Value) -> usize {
        self.shape(value).cols
    }

    /// The parameters declared so far.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// The state declared so far: values that training moves without gradients.
    pub fn states(&self) -> &[ParamSpec] {
        &self.states
    }

    /// The tables declared so far.
    pub fn tables(&self) -> &[TableSpec] {
        &self.tables
    }

    /// The parts of the loss.
    pub fn losses(&self) -> &[LossPart] {
        &self.losses
    }

    /// The outputs, by name.
    pub fn outputs(&self) -> &[(String, Value)] {
        &self.outputs
    }

    fn push(&mut self, name: String, kind: Kind, shape: Shape) -> Value {
        self.nodes.push(Node { name, kind, shape });
        Value(self.nodes.len() as u32 - 1)
    }

    /// Declares a parameter. A weight is a value like any other: what an op multiplies by may also be computed.
    ///
    /// # Errors
    /// When a block's name is taken or the blocks do not stack.
    pub fn param(&mut self, spec: ParamSpec) -> Result<Value> {
        self.check_blocks(&spec)?;
        let (shape, name) = (spec.shape(), spec.blocks[0].name.clone());
        self.params.push(spec);
        let index = self.params.len() - 1;
        Ok(self.push(name, Kind::Param(index), shape))
    }

    /// Declares state: values kept in checkpoints that no gradient moves (running statistics). Its index is what
    /// [`Reduction::state`](crate::op::Reduction::state) returns.
    ///
    /// # Errors
    /// When a block's name is taken or the blocks do not stack.
    pub fn state(&mut self, spec: ParamSpec) -> Result<(Value, usize)> {
        self.check_blocks(&spec)?;
        let (shape, name) = (spec.shape(), spec.blocks[0].name.clone());
        self.states.push(spec);
        let index = self.states.len() - 1;
        Ok((self.push(name, Kind::State(index), shape), index))
    }

    fn check_blocks(&self, spec: &ParamSpec) -> Result<()> {
        let values = |shape: &[usize]| shape.iter().map(|&n| n as u128).product::<u128>();
        let total: u128 = spec.blocks.iter().map(|b| values(&b.shape)).sum();
        if total > MAX_VALUES {
            let message = format!("has {total} values, more than {MAX_VALUES}; make the layer narrower");
            return Err(Error::graph(&spec.blocks[0].name, message));
        }
        for block in &spec.blocks {
            let mut taken = self.params.iter().chain(&self.states).flat_map(|s| &s.blocks).map(|b| &b.name);
            if taken.any(|name| *name == block.name) || self.tables.iter().any(|t| t.name == block.name) {
                return Err(Error::graph(&block.name, "two tensors have this name"));
            }
        }
        Ok(())
    }

    /// Declares an embedding table and gives its index; the same table again (shared by a field and a sequence) gives
    /// the same index.
    ///
    /// # Errors
    /// When the name is taken by a table of another shape.
    pub fn table(&mut self, spec: TableSpec) -> Result<usize> {
        if let Some(index) = self.tables.iter().position(|t| t.name == spec.name) {
            let known = &self.tables[index];
            if known != &spec {
                return Err(Error::graph(
                    &spec.name,
                    format!(
                        "is declared as [{}, {}] and as [{}, {}]",
                        known.rows, known.dim, spec.rows, spec.dim
                    ),
                ));
            }
            return Ok(index);
        }
        self.tables.push(spec);
        Ok(self.tables.len() - 1)
    }

    /// Says that list `bag` of the batch has at most `longest` ids a sample, so that they may have rows of their own.
    ///
    /// # Errors
    /// When it was declared with another length, or the length is 0.
    pub fn sequence(&mut self, bag: usize, longest: usize) -> Result<()> {
        match self.longest(bag) {
            None if longest > 0 => self.sequences.push((bag, longest)),
            Some(known) if known == longest => {}
            known => {
                let message = format!("a sample of list {bag} has at most {longest} ids, and {known:?}");
                return Err(Error::graph("sequence", message));
            }
        }
        Ok(())
    }

    /// Most ids a sample of list `bag`.
    pub(crate) fn longest(&self, bag: usize) -> Option<usize> {
        self.sequences.iter().find(|(b, _)| *b == bag).map(|&(_, longest)| longest)
    }

    /// Most rows of a value in `space` for each row of the batch.
    pub(crate) fn rows_a_sample(&self, space: Space) -> usize {
        match space {
            Space::Position(bag) => self.longest(bag).unwrap_or(1),
            Space::Batch | Space::Once => 1,
        }
    }

    /// Applies `op` to `inputs`.
    ///
    /// # Errors
    /// When the shapes do not fit, two inputs overlap (each needs a gradient of its own), or the op names a table, a
    /// loss or state that the graph does not have.
    pub fn add(&mut self, name: impl Into<String>, op: impl Op + 'static, inputs: &[Value]) -> Result<Value> {
        self.add_shared(name.into(), Arc::new(op), inputs)
    }

    /// Not generic: of a hundred ops each would have the code of its own.
    fn add_shared(&mut self, name: String, op: Arc<dyn Op>, inputs: &[Value]) -> Result<Value> {
        if inputs.len() > MAX_INPUTS {
            return Err(Error::graph(
                name,
                format!("{} inputs, at most {MAX_INPUTS} are possible", inputs.len()),
            ));
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&v| self.shape(v)).collect();
        let shape = op.output(&shapes).map_err(|m| Error::graph(&name, format!("{}: {m}", op.name())))?;
        for (i, &a) in inputs.iter().enumerate() {
            if inputs[..i].iter().any(|&b| self.overlap(a, b)) {
                return Err(Error::graph(
                    &name,
                    format!("{}: two inputs share columns of one value", op.name()),
                ));
            }
        }
        self.check_references(op.as_ref(), &shapes, shape)
            .map_err(|m| Error::graph(&name, format!("{}: {m}", op.name())))?;
        Ok(self.push(name, Kind::Op { op, inputs: inputs.to_vec() }, shape))
    }

    /// What an op says about itself must exist in this graph: a plan relies on it.
    fn check_references(&self, op: &dyn Op, inputs: &[Shape], output: Shape) -> Checked {
        let has_rows = inputs.iter().any(|i| i.space != Space::Once);
        match (output.space == Space::Once, op.reduction().is_some()) {
            (true, false) if has_rows || inputs.is_empty() => {
                return Err("only a reduction makes a value without rows of one with rows".into());
            }
            (false, true) => return Err("a reduction gives a value without rows".into()),
            (true, _) if op.extra(inputs) > 0 => {
                return Err("an op without rows leaves nothing beside its output".into());
            }
            _ => {}
        }
        if let Space::Position(bag) = output.space
            && self.longest(bag).is_none()
        {
            return Err(format!("list {bag} is no sequence of this graph"));
        }
        for lookup in op.lookups() {
            match self.tables.get(lookup.table) {
                Some(t) if t.dim == lookup.dim && lookup.column + lookup.dim <= output.cols => {}
                Some(t) => {
                    return Err(format!("rows of `{}` have {} values, not {}", t.name, t.dim, lookup.dim));
                }
                None => return Err(format!("there is no table {}", lookup.table)),
            }
        }
        let drawn =
            |node: &&Node| matches!(&node.kind, Kind::Op { op: other, .. } if other.draws() == op.draws());
        if op.draws().is_some()
            && let Some(other) = self.nodes.iter().find(drawn)
        {
            return Err(format!("draws the random numbers of `{}`; name it differently", other.name));
        }
        if op.loss().is_some_and(|l| l.0 >= self.losses.len()) {
            return Err("its part of the loss is one of another graph".into());
        }
        let state = op.reduction().and_then(|r| r.state());
        if state.is_some_and(|s| self.states.get(s).is_none_or(|s| s.shape().len() != output.len())) {
            return Err(format!("the state that {output} moves needs as many values"));
        }
        if let Some(pack) = op.packs().iter().find(|p| p.groups.iter().sum::<usize>() != inputs[p.input].rows)
        {
            return Err(format!("groups {:?} do not divide the weight {}", pack.groups, inputs[pack.input]));
        }
        Ok(())
    }

    /// Columns `from .. from + count` of a value; costs nothing.
    ///
    /// # Errors
    /// When they are out of range.
    pub fn columns(&mut self, of: Value, from: usize, count: usize) -> Result<Value> {
        let shape = self.shape(of);
        if from + count > shape.cols {
            let name = &self.nodes[of.index()].name;
            return Err(Error::graph(
                name,
                format!("columns {from} to {} of {} are asked for", from + count, shape),
            ));
        }
        let name = format!("{}[{from}..{}]", self.nodes[of.index()].name, from + count);
        Ok(self.push(name, Kind::Columns { of, from, stops_gradient: false }, Shape { cols: count, ..shape }))
    }

    /// The same value, through which no gradient flows; costs nothing.
    pub fn stop_gradient(&mut self, of: Value) -> Value {
        let shape = self.shape(of);
        let name = format!("stop({})", self.nodes[of.index()].name);
        self.push(name, Kind::Columns { of, from: 0, stops_gradient: true }, shape)
    }

    /// Says of hidden units, of which there may be as many as inputs, that none stands for one of them: in a graph that has
    /// [grown](crate::growth) the last ones are new.
    pub fn exchangeable(&mut self, units: Value) {
        self.exchangeable.push(units);
    }

    /// Declares a part of the loss.
    ///
    /// # Errors
    /// When the name is taken, it is over no scenario, or the weights of scenarios do not fit.
    pub fn loss(&mut self, part: LossPart) -> Result<LossId> {
        if self.losses.iter().any(|l| l.name == part.name) {
            return Err(Error::graph(part.name, "two parts of the loss have this name"));
        }
        part.check().map_err(|message| Error::graph(&part.name, message))?;
        self.losses.push(part);
        Ok(LossId(self.losses.len() - 1))
    }

    /// Makes `value` an output of the model.
    pub fn output(&mut self, name: impl Into<String>, value: Value) {
        self.outputs.push((name.into(), value));
    }

    /// Keeps the outputs whose names `keep` accepts: an evaluation plan computes nothing for the others.
    pub fn retain_outputs(&mut self, keep: impl Fn(&str) -> bool) {
        self.outputs.retain(|(name, _)| keep(name));
    }

    /// The node whose buffer holds `value`, and the first column there.
    pub(crate) fn root(&self, value: Value) -> (Value, usize) {
        match self.nodes[value.index()].kind {
            Kind::Columns { of, from, .. } => {
                let (root, start) = self.root(of);
                (root, start + from)
            }
            _ => (value, 0),
        }
    }

    /// Whether a gradient can flow from `value` to its root.
    pub(crate) fn passes_gradient(&self, value: Value) -> bool {
        match self.nodes[value.index()].kind {
            Kind::Columns { of, stops_gradient, .. } => !stops_gradient && self.passes_gradient(of),
            _ => true,
        }
    }

    fn overlap(&self, a: Value, b: Value) -> bool {
        let ((root_a, from_a), (root_b, from_b)) = (self.root(a), self.root(b));
        let (to_a, to_b) = (from_a + self.cols(a), from_b + self.cols(b));
        let both = self.passes_gradient(a) && self.passes_gradient(b);
        both && root_a == root_b && from_a < to_b && from_b < to_a
    }
}
