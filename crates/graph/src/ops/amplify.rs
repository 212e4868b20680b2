//! `y = x ⊙ a(r)`: every unit times an amplitude, which is γ·sigmoid(r), e^r, 1 + r, or 0 for a unit that is pruned.
//!
//! x, y `[batch, n]`. r is `[batch, n]`, what a gate says of each unit; over parts `[batch, parts]`, and one amplitude
//! multiplies all units of a part, as those of a field; by scenario `[scenarios, n]`, a matrix that exists once, of
//! which a row takes that of its scenario. Backward: `dx = dy ⊙ a(r)`, `dr = dy ⊙ x ⊙ a'(r)`, summed over a part or
//! over the rows of a scenario.
//!
//! In copies, r and y have several times n columns: each copy of x has amplitudes of its own, as the input of several
//! towers.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves, copy_bytes, scenario_sums_scratch};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Rowset, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::amplitude::{self as cuda, DeviceParts, Of};
use manygate_cuda::{DeviceMat, Element};
use manygate_kernels::Mat;
use manygate_kernels::amplitude::{self, Amplitude, Arguments, Pruning, Target};

/// Units times amplitudes, see the [module](self). Inputs: x, r.
#[derive(Clone, Debug)]
pub struct Amplify {
    amplitude: Amplitude,
    parts: Vec<usize>,
    scenarios: Option<usize>,
    copies: usize,
}

impl Amplify {
    /// An amplitude for each unit.
    pub fn new(amplitude: Amplitude) -> Amplify {
        Amplify { amplitude, parts: Vec::new(), scenarios: None, copies: 1 }
    }

    /// With one amplitude for all units of a part; `parts` are their numbers of units, in order.
    pub fn over_parts(self, parts: Vec<usize>) -> Amplify {
        Amplify { parts, ..self }
    }

    /// With the amplitudes of the row's scenario.
    pub fn by_scenario(self, scenarios: usize) -> Amplify {
        Amplify { scenarios: Some(scenarios), ..self }
    }

    /// Of `copies` copies of x side by side, each with its own amplitudes; not over parts.
    pub fn copies(self, copies: usize) -> Amplify {
        Amplify { copies, ..self }
    }

    fn arguments<'a>(&'a self, at: &Rowset<'a>, values: Mat<'a>) -> Arguments<'a> {
        let rows = self.scenarios.map(|_| &at.batch.scenario[at.range()]);
        Arguments { values, rows, parts: &self.parts }
    }

    /// What the amplitudes of a copy are taken of.
    fn own<'a>(&self, r: Mat<'a>, copy: usize) -> Mat<'a> {
        let cols = r.cols() / self.copies;
        r.columns(copy * cols, cols)
    }

    /// The amplitude that multiplies each unit of y.
    fn sources(&self, units: usize) -> Vec<usize> {
        match &self.parts[..] {
            [] => (0..units).collect(),
            parts => parts.iter().enumerate().flat_map(|(g, &n)| std::iter::repeat_n(g, n)).collect(),
        }
    }
}

impl Op for Amplify {
    fn name(&self) -> &'static str {
        "amplify"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if self.copies == 0 || (self.copies > 1 && !self.parts.is_empty()) {
            return Err(format!("{} copies in parts of {:?} are none", self.copies, self.parts));
        }
        let [x, r] = inputs else { return Err(format!("two inputs are needed, not {inputs:?}")) };
        let divided = self.parts.is_empty() || self.parts.iter().sum::<usize>() == x.cols;
        let cols = if self.parts.is_empty() { self.copies * x.cols } else { self.parts.len() };
        let wanted = self.scenarios.map_or(Shape::batch(cols), |s| Shape::once(s, cols));
        if x.space != Space::Batch || !divided || *r != wanted {
            return Err(format!("units {x} in parts of {:?} need {wanted}, not {r}", self.parts));
        }
        Ok(x.with_cols(self.copies * x.cols))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn masks(&self, input: usize) -> bool {
        input == 0
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: self.scenarios, ..Reads::default() }
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::at_same_place(output, reached, reached.len()),
            // The step of a mask has no slope.
            _ if matches!(self.amplitude, Amplitude::Mask { straight_through: false, .. }) => {}
            _ if self.scenarios.is_some() => reached.fill(true),
            _ => {
                let sources = self.sources(output.len());
                reach::marked(output).for_each(|unit| reached[sources[unit]] = true);
            }
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let n = inputs[0].cols;
        for copy in 0..self.copies {
            growth.tie((Axis::OutColumns, copy * n), (Axis::Columns(0), 0), n);
            growth.vanish((Axis::OutColumns, copy * n), (Axis::Columns(0), 0), n);
        }
        let mut from = 0;
        for (part, width) in self.parts.iter().enumerate() {
            growth.follow((Axis::Columns(1), part), (Axis::Columns(0), from), 1);
            from += width;
        }
        if self.parts.is_empty() {
            growth.tie((Axis::Columns(1), 0), (Axis::OutColumns, 0), self.copies * n);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, r, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        for copy in 0..self.copies {
            let (r, y) = (self.own(r, copy), y.columns(copy * x.cols(), x.cols()));
            amplitude::amplify(tile.at.isa, self.amplitude, x, self.arguments(&tile.at, r), y);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, r, dy) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        let (mut dx, mut dr) = (tile.take_gradient(0), tile.take_gradient(1));
        for copy in 0..self.copies {
            let (from, isa) = (copy * x.cols(), tile.at.isa);
            let arguments = self.arguments(&tile.at, self.own(r, copy));
            let mask = dx.as_ref().and_then(|dx| dx.mask).filter(|_| copy + 1 == self.copies);
            let dx =
                dx.as_mut().map(|dx| Target { to: dx.to.reborrow(), accumulate: dx.accumulate || copy > 0 });
            let dr = dr.as_mut().map(|dr| Target {
                to: dr.to.columns(copy * arguments.values.cols(), arguments.values.cols()),
                accumulate: dr.accumulate,
            });
            let dy = dy.as_mat().columns(from, x.cols());
            amplitude::amplify_backward(isa, self.amplitude, x, arguments, dy, dx, mask, dr);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (x, r) = (&inputs[0], &inputs[1]);
        let mut y = Matrix::zeros(x.rows, self.copies * x.cols);
        let sources = self.sources(y.cols);
        for (row, c) in (0..y.rows).flat_map(|row| (0..sources.len()).map(move |c| (row, c))) {
            let own = self.scenarios.map_or(row, |_| batch.scenario[row] as usize);
            y.set(row, c, x.at(row, c % x.cols) * amplitude_f64(self.amplitude, r.at(own, sources[c])));
        }
        y
    }
}

/// An amplitude in f64, for references.
fn amplitude_f64(amplitude: Amplitude, r: f64) -> f64 {
    match amplitude {
        Amplitude::Sigmoid(scale) => f64::from(scale) / (1.0 + (-r).exp()),
        Amplitude::Exp => r.exp(),
        Amplitude::OnePlus => 1.0 + r,
        Amplitude::Pruned(pruning) => weight_f64(pruning, r).unwrap_or(0.0),
        Amplitude::Mask { pruning, .. } => f64::from(u8::from(weight_f64(pruning, r).is_some())),
    }
}

/// The weight of a unit that is not pruned, in f64.
pub(super) fn weight_f64(pruning: Pruning, r: f64) -> Option<f64> {
    let weight = f64::from(pruning.scale) / (1.0 + (-f64::from(pruning.steepness) * r).exp());
    (weight > f64::from(pruning.threshold)).then_some(weight)
}

/// By scenario, each row first takes its amplitudes' arguments, and gives their gradients, as if they were its own.
impl DeviceOp for Amplify {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let cols = inputs[1].cols;
        self.scenarios.map_or(0, |scenarios| {
            2 * copy_bytes(capacity.rows, cols) + scenario_sums_scratch(capacity, scenarios, cols)
        })
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, y) = (step.input(0), step.output());
        let (r, parts) = (self.arguments_on(step, x), self.parts_on(step));
        for copy in 0..self.copies {
            let of = Of { values: self.own_on(r, copy), parts };
            step.launch(cuda::amplify(self.amplitude, x, of, self.own_on(y, copy)));
        }
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, dy) = (step.input(0), step.output_gradient());
        let (r, parts) = (self.arguments_on(step, x), self.parts_on(step));
        let (dx, dr) = (step.take_gradient(0), step.take_gradient(1));
        let gathered = copy_bytes(step.capacity().rows, r.cols as usize);
        let of_rows = dr.map(|dr| match self.scenarios {
            None => (dr.to, dr.accumulate),
            Some(_) => (DeviceMat { address: step.scratch() + gathered, ..r }, false),
        });
        for copy in 0..self.copies {
            let of = Of { values: self.own_on(r, copy), parts };
            let mask = dx.and_then(|dx| dx.mask).filter(|_| copy + 1 == self.copies);
            let activation = mask.map(|(activation, _)| activation);
            let dx = dx.map(|dx| (dx.to, dx.accumulate || copy > 0));
            let dr = of_rows.map(|(dr, accumulate)| (self.own_on(dr, copy), accumulate));
            let dy = self.own_on(dy, copy);
            step.launch(cuda::amplify_backward(self.amplitude, x, of, dy, dx, activation, dr));
        }
        if let (Some(_), Some(dr), Some((rows, _))) = (self.scenarios, dr, of_rows) {
            step.sum_by_scenario(rows, dr.accumulate, dr.to, step.scratch() + 2 * gathered);
        }
    }
}

impl Amplify {
    /// What amplitudes are taken of, a row for each of `x`.
    fn arguments_on(&self, step: &mut DeviceStep<'_>, x: DeviceMat) -> DeviceMat {
        let r = step.input(1);
        if self.scenarios.is_none() {
            return r;
        }
        let (cols, stride) = (r.cols, r.cols.next_multiple_of(4));
        let rows = DeviceMat { address: step.scratch(), cols, stride, element: Element::F32, ..x };
        step.rows_of_scenarios(r, rows);
        rows
    }

    /// The columns of a copy.
    fn own_on(&self, mat: DeviceMat, copy: usize) -> DeviceMat {
        let cols = mat.cols / self.copies as u32;
        mat.columns(copy as u32 * cols, cols)
    }

    /// The parts, in device memory.
    fn parts_on(&self, step: &mut DeviceStep<'_>) -> Option<DeviceParts> {
        let of = |parts: &[usize]| DeviceParts::new(parts, step.constant(&cuda::parts_to_bytes(parts)));
        Some(&self.parts[..]).filter(|parts| !parts.is_empty()).map(of)
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let units = |name: &str, amplitude, cols: usize| {
        Case::new(name, move |g, x| g.add("op", Amplify::new(amplitude), x)).rows(cols).rows(cols)
    };
    let over = |name: &str, parts: &[usize]| {
        let (op, number) = (Amplify::new(Amplitude::Sigmoid(2.0)).over_parts(parts.to_vec()), parts.len());
        Case::new(name, move |g, x| g.add("op", op.clone(), x)).rows(parts.iter().sum()).rows(number)
    };
    let by_scenario = |name: &str, amplitude, cols: usize| {
        let op = Amplify::new(amplitude).by_scenario(3);
        Case::new(name, move |g, x| g.add("op", op.clone(), x)).rows(cols).once(3, cols)
    };
    let in_copies = |name: &str, copies: usize, cols: usize| {
        let op = Amplify::new(Amplitude::Sigmoid(2.0)).copies(copies);
        Case::new(name, move |g, x| g.add("op", op.clone(), x)).rows(cols).rows(copies * cols)
    };
    let pruning = Pruning { scale: 1.5, steepness: 2.0, threshold: 0.6 };
    // With a gradient straight through the step, differences say nothing of it: golden cases of adasparse check that.
    let mask = Amplitude::Mask { pruning, straight_through: false };
    vec![
        units("amplify/one", Amplitude::Sigmoid(2.0), 1),
        units("amplify/sigmoid", Amplitude::Sigmoid(3.0), 19),
        units("amplify/exp", Amplitude::Exp, 17),
        units("amplify/one_plus", Amplitude::OnePlus, 5),
        units("amplify/pruned", Amplitude::Pruned(pruning), 18),
        units("amplify/mask", mask, 7),
        in_copies("amplify/copies", 3, 5),
        over("amplify/fields", &[4, 4, 7, 1, 1]),
        by_scenario("amplify/scenario", Amplitude::Sigmoid(2.0), 18),
        by_scenario("amplify/scenario_exp", Amplitude::Exp, 3),
    ]
}
