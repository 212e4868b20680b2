//! What an op is, and what it sees of a tile of rows.

use crate::device::DeviceOp;
use crate::draws::Draws;
use crate::graph::LossId;
use crate::growth::Growth;
use crate::param::TableSpec;
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_kernels::activation::Activation;
use manygate_kernels::embedding::Rows;
use manygate_kernels::{Isa, Mat, MatMut};
use std::fmt::Debug;
use std::ops::Range;

/// What the backward pass of an op reads of its forward pass. Everything else is dead after the forward pass, and
/// its memory is used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The inputs, as a bit set by position.
    pub inputs: u64,
    /// The output.
    pub output: bool,
}

impl Saved {
    /// Whether input `i` is read.
    pub fn has_input(&self, i: usize) -> bool {
        self.inputs & 1 << i != 0
    }
}

/// A packed copy of a weight that an op multiplies by; the plan packs it once a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Pack {
    /// Which input is the weight, a [`Space::Once`](crate::Space::Once) matrix.
    pub input: usize,
    /// Rows of each group that is packed by itself, top to bottom.
    pub groups: Vec<usize>,
    /// Packed as Wᵀ (x Wᵀ reads that) or as W (x W does).
    pub transposed: bool,
    /// Whether the backward step reads it, and not the forward step.
    pub backward: bool,
}

/// Columns of an op's output that are rows of a table (or the pooled rows of a bag).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The table.
    pub table: usize,
    /// Its ids.
    pub source: LookupSource,
    /// First column of the output.
    pub column: usize,
    /// Number of columns: the table's width.
    pub dim: usize,
    /// The scenario whose rows look this table up, where scenarios have tables of their own; the op then
    /// [reads by scenario](Reads::by_scenario).
    pub scenario: Option<usize>,
}

/// What an op reads of a batch by itself, as the least that the batch must have. A plan refuses other batches, so an op
/// may index these columns without fear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Columns of [`Batch::ids`].
    pub fields: usize,
    /// Columns of [`Batch::bags`].
    pub bags: usize,
    /// The width of [`Batch::dense`], where it is read.
    pub dense: Option<usize>,
    /// Columns of [`Batch::labels`].
    pub labels: usize,
    /// The number of scenarios, where it reads [`Batch::scenario`].
    pub scenarios: Option<usize>,
    /// Whether all rows of a tile must be of one scenario, see [`Rowset::scenario`].
    pub by_scenario: bool,
}

/// Where ids stand in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupSource {
    /// `batch.ids[field]`.
    Field(usize),
    /// `batch.bags[bag]`, whose rows become one a sample.
    Bag(usize),
    /// `batch.bags[bag]`, each id by itself.
    Positions(usize),
}

/// Dense f64 matrix for reference implementations.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Row-major values.
    pub data: Vec<f64>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Value at `(r, c)`.
    pub fn at(&self, r: usize, c: usize) -> f64 {
        self.data[r * self.cols + c]
    }

    /// Sets the value at `(r, c)`.
    pub fn set(&mut self, r: usize, c: usize, value: f64) {
        self.data[r * self.cols + c] = value;
    }
}

/// An activation in f64, for references.
pub fn activate_f64(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::Identity => z,
        Activation::Relu => z.max(0.0),
        Activation::LeakyRelu(slope) => z.max(0.0) + f64::from(slope) * z.min(0.0),
        Activation::Tanh => z.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-z).exp()),
    }
}

/// An operation of the graph. Forward and backward of an op, its reference and its tests share one file.
///
/// An op never allocates, never asks which thread it is on, and computes each row by itself (a reduction over rows
/// says so, see [`Reduction`]). Rows are symbolic: an op maps widths to a width.
pub trait Op: Debug + Send + Sync {
    /// The op's name, as in `manygate inspect --plan`.
    fn name(&self) -> &'static str;

    /// Checks the inputs' shapes and gives the output's.
    ///
    /// # Errors
    /// A message that says which input does not fit, with the shapes.
    fn output(&self, inputs: &[Shape]) -> Result<Shape, String>;

    /// What the backward pass reads.
    fn saved(&self) -> Saved;

    /// The columns of the output that end in an activation, whose slope the backward pass multiplies by first. The
    /// plan may have the op above do it in passing, and then sets [`Backward::activation_done`].
    fn activated(&self) -> Option<(Activation, Range<usize>)> {
        None
    }

    /// Whether the backward pass can multiply the gradient of input `i` by an activation's slope in passing.
    fn masks(&self, _input: usize) -> bool {
        false
    }

    /// Packed weights that it reads, in the order of [`Forward::packed`].
    fn packs(&self) -> Vec<Pack> {
        Vec::new()
    }

    /// f32 values of scratch for a tile of `rows` rows; positions where the op works on those.
    fn scratch(&self, _rows: usize, _inputs: &[Shape]) -> usize {
        0
    }

    /// Values a row that the forward pass leaves for the backward pass beside the output (softmax weights, say).
    fn extra(&self, _inputs: &[Shape]) -> usize {
        0
    }

    /// What it reads of the batch by itself.
    fn reads(&self) -> Reads {
        Reads::default()
    }

    /// Whether the gradient of its output must outlive the tile: for the sparse update of tables, or (an op without
    /// look-ups) for a caller, who then gets it even where nothing below learns.
    fn keeps_output_gradient(&self) -> bool {
        false
    }

    /// What it looks up of tables; the gradient of the named columns of its output belongs to their rows.
    fn lookups(&self) -> &[Lookup] {
        &[]
    }

    /// The key of the random numbers that it draws: the [hash](crate::name_hash) of a name that no other op of the graph
    /// draws by, whatever else the graph holds and in which order.
    fn draws(&self) -> Option<u64> {
        None
    }

    /// The loss part that it adds to.
    fn loss(&self) -> Option<LossId> {
        None
    }

    /// Marks the channels of input `i` that the marked channels of the output depend on with a slope: the columns of a
    /// value with rows, the rows of a matrix that exists once. `reached` starts without a mark; all, unless an op knows
    /// better. That is how a plan tells what a part of the loss [reaches](crate::Plan::reached_by). A loss is asked with
    /// an output that has no channels.
    fn reach(&self, _inputs: &[Shape], _i: usize, _output: &[bool], reached: &mut [bool]) {
        reached.fill(true);
    }

    /// Tells which rows and columns of its inputs and its output are the same, and what must start at zero so that new
    /// columns of an input have no effect: that is how a model [grows](crate::growth) by an input. An op that says nothing
    /// can only be where no width changes.
    fn grow(&self, _inputs: &[Shape], _growth: &mut Growth<'_>) {}

    /// Multiply-adds of a row in the forward pass; the backward pass is counted as twice that.
    fn multiply_adds(&self, _inputs: &[Shape]) -> usize {
        0
    }

    /// The reduction over rows, for an op that makes a [`Space::Once`](crate::Space::Once) value of values with rows.
    fn reduction(&self) -> Option<&dyn Reduction> {
        None
    }

    /// Index of the state that its output, a value that exists once, is after a training step. (What a reduction moves, it
    /// moves by [`Reduction::update_state`].)
    fn next_state(&self) -> Option<usize> {
        None
    }

    /// The same on a CUDA device, for an op that has kernels there.
    fn on_device(&self) -> Option<&dyn DeviceOp> {
        None
    }

    /// Computes the output of a tile.
    fn forward(&self, tile: &mut Forward<'_>);

    /// Computes gradients of inputs and weights from the gradient of the output. It must take the gradient of every
    /// input that is wanted: a plan stops an op that drops one.
    fn backward(&self, tile: &mut Backward<'_>);

    /// The same function in plain f64, for tests: inputs and tables as matrices, the whole batch as one tile. A loss
    /// returns one term a row, whose sum is what is differentiated.
    fn reference(&self, inputs: &[Matrix], tables: &[Matrix], batch: &Batch) -> Matrix;

    /// The same with the random numbers of a run, for an op that [draws](Op::draws) some.
    fn reference_drawn(
        &self,
        inputs: &[Matrix],
        tables: &[Matrix],
        batch: &Batch,
        _draws: &Draws<'_>,
    ) -> Matrix {
        self.reference(inputs, tables, batch)
    }
}

/// An op that reduces the whole batch to a [`Space::Once`](crate::Space::Once) value: it cuts the plan.
pub trait Reduction {
    /// f64 values that a lane accumulates.
    fn partial_len(&self, inputs: &[Shape]) -> usize;

    /// Adds a tile to the lane's partial sums.
    fn accumulate(&self, tile: &Forward<'_>, partial: &mut [f64]);

    /// Turns the sums over the whole batch into the output, row-major.
    fn finish(&self, facts: &Facts, sums: &[f64], output: &mut [f32]);

    /// Index of the state that the output moves, with [`update_state`](Reduction::update_state).
    fn state(&self) -> Option<usize> {
        None
    }

    /// Moves the state after a training step.
    fn update_state(&self, _facts: &Facts, _output: &[f32], _state: &mut [f32]) {}
}

/// Facts about the whole batch, known before the first tile.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Rows of the batch.
    pub rows: usize,
    /// By loss part and group of its rows: what the sum of losses is divided by.
    pub(crate) divisors: Vec<Vec<f64>>,
    /// By loss part and group of its rows: seed · weight / divisor, the factor of each row's gradient.
    pub(crate) scale: Vec<Vec<f32>>,
    /// By scenario: its rows in the batch, where an op reads scenarios. An evaluation plan computes weights when they
    /// change and not for each batch: then every scenario has a row.
    pub scenario_rows: Vec<usize>,
    /// By list: its ids in the batch.
    pub positions: Vec<usize>,
}

/// The tables that a plan looks up, in the plan's order. A source gives views on demand, so that a warm step builds no
/// list of them.
pub trait TableSource: Sync {
    /// Number of tables.
    fn len(&self) -> usize;

    /// Whether there are no tables.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of table `index`.
    ///
    /// # Panics
    /// When there is no such table.
    fn rows(&self, index: usize) -> Rows<'_>;
}

impl TableSource for Vec<Rows<'_>> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn rows(&self, index: usize) -> Rows<'_> {
        self[index]
    }
}

/// What is the same for every op of a tile.
#[derive(Clone, Copy)]
pub struct Rowset<'a> {
    /// Instruction set to use.
    pub isa: Isa,
    /// Rows of the tile.
    pub rows: usize,
    /// Number of the tile's first row in the batch.
    pub first_row: usize,
    /// The batch.
    pub batch: &'a Batch,
    /// Facts about the whole batch.
    pub facts: &'a Facts,
    /// What random numbers are keyed by.
    pub draws: Draws<'a>,
    /// Tables by index.
    pub tables: &'a dyn TableSource,
    /// Declarations of the tables.
    pub table_specs: &'a [TableSpec],
}

impl<'a> Rowset<'a> {
    /// The rows of the batch that this tile covers.
    pub fn range(&self) -> Range<usize> {
        self.first_row..self.first_row + self.rows
    }

    /// The rows of a value `[ids of list bag, ..]` that this tile covers.
    pub fn positions(&self, bag: usize) -> Range<usize> {
        let offsets = &self.batch.bags[bag].offsets;
        offsets[self.first_row] as usize..offsets[self.first_row + self.rows] as usize
    }

    /// Positions, within the tile, of the ids of its sample `r`.
    pub fn positions_of(&self, bag: usize, r: usize) -> Range<usize> {
        let offsets = &self.batch.bags[bag].offsets;
        let (first, row) = (offsets[self.first_row], self.first_row + r);
        (offsets[row] - first) as usize..(offsets[row + 1] - first) as usize
    }

    /// The factor of the gradient of every row of the tile that adds to a part of the loss: seed · weight / number of
    /// rows that the part is the mean over, times the weight of the tile's scenario where the part has those.
    pub fn scale(&self, part: LossId) -> f32 {
        match &self.facts.scale[part.index()][..] {
            [scale] => *scale,
            by_scenario => by_scenario[self.scenario()],
        }
    }

    /// The scenario of all rows of the tile, for an op with [`Reads::by_scenario`].
    pub fn scenario(&self) -> usize {
        self.batch.scenario[self.first_row] as usize
    }
}

/// Resolves inputs of a step to views; filled in by the plan.
pub(crate) trait Resolve<'a> {
    fn input(&self, i: usize) -> Mat<'a>;
    fn packed(&self, slot: usize) -> &'a [f32];
    fn output(&self) -> Mat<'a>;
    fn output_mut(&self) -> MatMut<'a>;
    fn output_gradient(&self) -> MatMut<'a>;
    fn once_gradient(&self) -> Mat<'a>;
    fn extra(&self) -> MatMut<'a>;
    fn gradient(&self, i: usize) -> Option<Gradient<'a>>;
    fn scratch(&self) -> &'a mut [f32];
    fn loss(&self, part: usize) -> &'a mut f64;
}

/// The forward pass of one op over one tile.
pub struct Forward<'a> {
    /// The rows.
    pub at: Rowset<'a>,
    pub(crate) views: &'a dyn Resolve<'a>,
    pub(crate) taken: u64,
}

/// Where the gradient of an input goes.
pub struct Gradient<'a> {
    /// The view to write.
    pub to: MatMut<'a>,
    /// Whether to add to what is there, or overwrite it.
    pub accumulate: bool,
    /// After the sum, multiply by the slope of this activation at this output.
    pub mask: Option<(Activation, Mat<'a>)>,
}

impl<'a> Gradient<'a> {
    /// Gives row `r`: adds `values` to it, or overwrites it with them. For ops that mask nothing.
    pub fn put(&mut self, r: usize, values: impl Iterator<Item = f32>) {
        for (to, value) in self.to.row_mut(r).iter_mut().zip(values) {
            *to = if self.accumulate { *to + value } else { value };
        }
    }

    /// The `count` rows from row `from` on, for an op that uses only these of a weight in a tile: the others start at
    /// zero.
    pub fn only_rows(mut self, from: usize, count: usize) -> Gradient<'a> {
        if !self.accumulate {
            for r in (0..from).chain(from + count..self.to.rows()) {
                self.to.row_mut(r).fill(0.0);
            }
        }
        Gradient { to: self.to.into_row_range(from, count), ..self }
    }
}

/// The backward pass of one op over one tile.
pub struct Backward<'a> {
    /// The rows.
    pub at: Rowset<'a>,
    /// The gradient that arrives is already multiplied by the slope of the op's own activation.
    pub activation_done: bool,
    pub(crate) views: &'a dyn Resolve<'a>,
    pub(crate) taken: u64,
}

/// Marks `bit` as handed out; each writable view is handed out once a tile, which is what keeps them exclusive.
fn take(taken: &mut u64, bit: usize, what: &str) {
    assert!(bit < 64 && *taken & 1 << bit == 0, "{what} was taken before");
    *taken |= 1 << bit;
}

const OUTPUT: usize = 63;
const SCRATCH: usize = 62;
const LOSS: usize = 61;
const EXTRA: usize = 60;

/// Most inputs that an op may have.
pub const MAX_INPUTS: usize = 32;

impl<'a> Forward<'a> {
    /// Input `i`: a tile of rows, or the whole matrix of a [`Space::Once`](crate::Space::Once) value.
    pub fn input(&self, i: usize) -> Mat<'a> {
        self.views.input(i)
    }

    /// Packed weight `slot` of [`Op::packs`].
    pub fn packed(&self, slot: usize) -> &'a [f32] {
        self.views.packed(slot)
    }

    /// The output, to be written in full. Taken once.
    pub fn take_output(&mut self) -> MatMut<'a> {
        take(&mut self.taken, OUTPUT, "the output");
        self.views.output_mut()
    }

    /// Scratch values, undefined at the start. Taken once.
    pub fn take_scratch(&mut self) -> &'a mut [f32] {
        take(&mut self.taken, SCRATCH, "scratch");
        self.views.scratch()
    }

    /// The values for the backward pass that [`Op::extra`] asked for, to be written in full. Taken once.
    pub fn take_extra(&mut self) -> MatMut<'a> {
        take(&mut self.taken, EXTRA, "extra");
        self.views.extra()
    }

    /// The lane's sum of losses of `part`, to be added to. Taken once.
    pub fn take_loss(&mut self, part: usize) -> &'a mut f64 {
        take(&mut self.taken, LOSS, "the loss");
        self.views.loss(part)
    }
}

impl<'a> Backward<'a> {
    /// Input `i`.
    ///
    /// # Panics
    /// When it has rows and [`Op::saved`] did not ask for it: its memory is used again.
    pub fn input(&self, i: usize) -> Mat<'a> {
        self.views.input(i)
    }

    /// The output.
    ///
    /// # Panics
    /// When [`Op::saved`] did not ask for it: its memory is used again.
    pub fn output(&self) -> Mat<'a> {
        self.views.output()
    }

    /// Packed weight `slot` of [`Op::packs`].
    pub fn packed(&self, slot: usize) -> &'a [f32] {
        self.views.packed(slot)
    }

    /// The values that the forward pass left. Taken once.
    pub fn take_extra(&mut self) -> MatMut<'a> {
        take(&mut self.taken, EXTRA, "extra");
        self.views.extra()
    }

    /// The gradient of the output; the op may overwrite it. Taken once. A reduction has [`Backward::once_gradient`].
    pub fn take_output_gradient(&mut self) -> MatMut<'a> {
        take(&mut self.taken, OUTPUT, "the output's gradient");
        self.views.output_gradient()
    }

    /// The gradient of a reduction's output, summed over the batch: the same for every tile.
    pub fn once_gradient(&self) -> Mat<'a> {
        self.views.once_gradient()
    }

    /// Where the gradient of input `i` goes; [`None`] when nobody wants it. Taken once.
    pub fn take_gradient(&mut self, i: usize) -> Option<Gradient<'a>> {
        take(&mut self.taken, i, "an input's gradient");
        self.views.gradient(i)
    }

    /// Scratch values, undefined at the start. Taken once.
    pub fn take_scratch(&mut self) -> &'a mut [f32] {
        take(&mut self.taken, SCRATCH, "scratch");
        self.views.scratch()
    }
}
