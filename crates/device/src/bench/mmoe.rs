//! A bank of experts under gates, as MMoE has it: its layers together and the products of it one by one.
//!
//! The first layer of all experts and all gates is one product, the second layer of the experts a grouped one, and a
//! kernel weighs and mixes what they give. Experts end in ReLU; all have biases. In bf16, values with a row a sample and
//! weights are stored so; gradients of weights and the weights of experts are f32.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::reference::{Error, dot, gate, gate_dx, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::gate::{gate_combine, gate_combine_dx};
use manygate_cuda::gemm::{self, Head, Heads, linear, linear_dw, linear_dx};
use manygate_cuda::gemm_gradients::{InputGradient, WeightGradient, grouped_linear_gradients};
use manygate_cuda::{DeviceMat, Element, Launch, Precision};
use manygate_kernels::activation::Activation;

const RELU: Activation = Activation::Relu;
pub(super) const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];
/// Rows of the batch that are compared.
const COMPARED: u32 = 6;
/// Weights and biases up to this keep values from layer to layer in size.
const BIAS: f32 = 0.1;

/// Widths of the layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layers {
    pub(super) batch: u32,
    pub(super) inputs: u32,
    pub(super) experts: u32,
    /// Of an expert's first layer.
    pub(super) hidden: u32,
    /// Of its second.
    pub(super) width: u32,
    pub(super) gates: u32,
}

impl Layers {
    /// 512 inputs, 8 experts of 256 and 128 units, 3 gates, in batches of two sizes.
    pub(super) fn all(size: Size) -> [Layers; 2] {
        let (batches, inputs, experts, hidden, width, gates) = match size {
            Size::Full => ([65_536, 16_384], 512, 8, 256, 128, 3),
            Size::Small => ([40, 24], 48, 3, 24, 16, 2),
        };
        batches.map(|batch| Layers { batch, inputs, experts, hidden, width, gates })
    }

    fn shape(&self) -> Shape {
        let Layers { batch, inputs, experts, hidden, width, gates } = *self;
        Shape::new(&[
            ("batch", batch),
            ("inputs", inputs),
            ("experts", experts),
            ("hidden", hidden),
            ("width", width),
            ("gates", gates),
        ])
    }

    /// Columns of the first layer: those of the experts, then the logits of the gates.
    fn first_cols(&self) -> u32 {
        self.experts * self.hidden + self.logits()
    }

    fn logits(&self) -> u32 {
        self.gates * self.experts
    }

    /// Multiply-adds of a row forward; backward there are twice as many.
    fn multiply_adds(&self) -> f64 {
        let mixing = self.gates * self.experts * self.width;
        f64::from(self.inputs * self.first_cols() + self.experts * self.hidden * self.width + mixing)
    }

    /// Values of weights and biases.
    fn parameters(&self) -> f64 {
        let (first, second) = (self.inputs + 1, (self.hidden + 1) * self.experts * self.width);
        f64::from(first * self.first_cols() + second)
    }

    fn cases(self, precision: Precision) -> [Case; 2] {
        let batch = f64::from(self.batch);
        let (x, mixed) = (f64::from(self.inputs), f64::from(self.gates * self.width));
        let size = stored(precision).bytes() as f64;
        let flops = 2.0 * batch * self.multiply_adds();
        let forward = Work { bytes: size * (batch * (x + mixed) + self.parameters()), flops };
        // Backward: the gradient of what was mixed and x again, and those of x and of the parameters.
        let backward = size * batch * (2.0 * x + mixed) + (size + 4.0) * self.parameters();
        let both = Work { bytes: forward.bytes + backward, flops: 3.0 * flops };
        let case = |kernel, work, prepare: fn(Mmoe) -> Result<Prepared, DeviceError>| Case {
            kernel,
            shape: self.shape(),
            precision,
            work,
            tolerance: tolerance(precision),
            prepare: Box::new(move |bench| prepare(Mmoe::new(self, precision, bench)?)),
        };
        [
            case("mmoe_forward_backward", both, Mmoe::prepare_both),
            case("mmoe_forward", forward, Mmoe::prepare_forward),
        ]
    }
}

/// Both directions and forward alone, for both batches in each precision.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let of = |layers: Layers| PRECISIONS.iter().rev().flat_map(move |&precision| layers.cases(precision));
    Layers::all(size).into_iter().flat_map(of).collect()
}

/// What values with a row a sample and weights are stored as.
pub(super) fn stored(precision: Precision) -> Element {
    if precision == Precision::Bf16 { Element::Bf16 } else { Element::F32 }
}

/// Largest error of a product of operands that are what they are stored as. Tensor cores leave off the end of a tf32.
pub(super) fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2e-5,
        Precision::Tf32 => 4e-3,
        Precision::Bf16 => 2e-2,
    }
}

/// Weights for `inputs` values that leave their size as it is.
pub(super) fn weight_scale(inputs: u32) -> f32 {
    (3.0 / inputs as f32).sqrt()
}

/// The layers in memory.
#[derive(Clone, Copy, Debug)]
struct Mmoe {
    layers: Layers,
    precision: Precision,
    x: Random,
    first: Random,
    first_bias: Random,
    second: Random,
    second_bias: Random,
    /// Outputs of the first layer: experts, then logits.
    hidden: DeviceMat,
    bank: DeviceMat,
    weights: DeviceMat,
    mixed: DeviceMat,
    d_mixed: Random,
    d_hidden: DeviceMat,
    d_bank: DeviceMat,
    dx: DeviceMat,
    /// Gradients of the weights, then of the biases, of either layer.
    dw: [DeviceMat; 2],
    db: [u64; 2],
    scratch: u64,
}

impl Mmoe {
    fn new(layers: Layers, precision: Precision, bench: &mut Workbench) -> Result<Mmoe, DeviceError> {
        let element = stored(precision);
        let Layers { batch, inputs, experts, hidden, width, gates } = layers;
        let (first_cols, bank_cols) = (layers.first_cols(), experts * width);
        let scratch = [
            gemm::linear_dw_scratch(batch, inputs, first_cols, 1),
            gemm::linear_dw_scratch(batch, hidden, width, experts),
        ];
        let f32_mat = |bench: &mut Workbench, rows, cols| bench.mat_with(rows, cols, cols, Element::F32);
        Ok(Mmoe {
            layers,
            precision,
            x: bench.random(batch, inputs, element, 1.0)?,
            first: bench.random_contiguous(first_cols, inputs, element, weight_scale(inputs))?,
            first_bias: bench.random_contiguous(1, first_cols, Element::F32, BIAS)?,
            second: bench.random_contiguous(bank_cols, hidden, element, weight_scale(hidden))?,
            second_bias: bench.random_contiguous(1, bank_cols, Element::F32, BIAS)?,
            hidden: bench.mat(batch, first_cols, element)?,
            bank: bench.mat(batch, bank_cols, element)?,
            weights: bench.mat(batch, layers.logits(), Element::F32)?,
            mixed: bench.mat(batch, gates * width, element)?,
            d_mixed: bench.random(batch, gates * width, element, 1.0)?,
            d_hidden: bench.mat(batch, first_cols, element)?,
            d_bank: bench.mat(batch, bank_cols, element)?,
            dx: bench.mat(batch, inputs, element)?,
            dw: [f32_mat(bench, first_cols, inputs)?, f32_mat(bench, bank_cols, hidden)?],
            db: [bench.allocate(4 * u64::from(first_cols))?, bench.allocate(4 * u64::from(bank_cols))?],
            scratch: bench.allocate(4 * scratch.into_iter().max().unwrap_or(0) as u64)?,
        })
    }

    /// The experts' columns of the first layer, and the logits.
    fn parts(&self, first: DeviceMat) -> (DeviceMat, DeviceMat) {
        let experts = self.layers.experts * self.layers.hidden;
        (first.columns(0, experts), first.columns(experts, self.layers.logits()))
    }

    fn forward(&self) -> Vec<Launch> {
        let Mmoe { layers, precision, x, first, second, hidden, bank, weights, mixed, .. } = *self;
        let head = |width, activation| Head { width, bias: true, activation };
        let heads = [head(layers.experts * layers.hidden, RELU), head(layers.logits(), Activation::Identity)];
        let heads = Heads::new(self.first_bias.mat.address, &heads);
        let (experts, logits) = self.parts(hidden);
        let bias = self.second_bias.mat.address;
        vec![
            linear(precision, x.mat, first.mat, &heads, hidden),
            gemm::grouped_linear(precision, layers.experts, experts, second.mat, bias, RELU, bank),
            gate_combine(layers.gates, logits, bank, weights, mixed),
        ]
    }

    fn backward(&self) -> Vec<Launch> {
        let Mmoe { layers, precision, x, first, second, bank, weights, d_bank, d_hidden, scratch, .. } =
            *self;
        let (experts, _) = self.parts(self.hidden);
        let (d_experts, d_logits) = self.parts(d_hidden);
        let groups = layers.experts;
        let mut launches = vec![gate_combine_dx(
            layers.gates,
            weights,
            bank,
            self.d_mixed.mat,
            false,
            d_logits,
            false,
            Some(RELU),
            d_bank,
        )];
        let [dw, dw_second] = self.dw;
        let [db, db_second] = [(d_hidden, self.db[0]), (d_bank, self.db[1])]
            .map(|(dy, to)| Some(gemm::BiasGradient { dy, accumulate: false, to }));
        let of_weights = WeightGradient { accumulate: false, to: dw_second };
        let of_experts = InputGradient { accumulate: false, mask: Some((RELU, experts)), to: d_experts };
        launches.extend(grouped_linear_gradients(
            precision, groups, d_bank, experts, second.mat, of_weights, db_second, of_experts, scratch,
        ));
        launches.extend(linear_dw(precision, d_hidden, x.mat, false, dw, db, scratch));
        launches.push(linear_dx(precision, d_hidden, first.mat, false, None, self.dx));
        launches
    }

    fn prepare_forward(self) -> Result<Prepared, DeviceError> {
        Prepared::new(self.forward(), move |bench| self.compare_forward(bench))
    }

    fn prepare_both(self) -> Result<Prepared, DeviceError> {
        let launches = [self.forward(), self.backward()].concat();
        Prepared::new(launches, move |bench| {
            Ok(self.compare_forward(bench)?.max(self.compare_backward(bench)?))
        })
    }

    fn compare_forward(&self, bench: &Workbench) -> Result<f64, DeviceError> {
        let Layers { batch, experts, hidden, width, gates, .. } = self.layers;
        let (first, second) = (rows_of(self.first), rows_of(self.second));
        let mut error = Error::default();
        for row in sample(batch, COMPARED) {
            let x = self.x.row(row);
            let biased = |bias: Random, out: u32| f64::from(bias.at(0, out));
            let of_first =
                (0..).zip(&first).map(|(o, weights)| dot(&x, weights) + biased(self.first_bias, o));
            let mut of_first: Vec<f64> = of_first.collect();
            let logits = of_first.split_off((experts * hidden) as usize);
            let inputs: Vec<Vec<f64>> = of_first
                .chunks(hidden as usize)
                .map(|expert| expert.iter().map(|value| value.max(0.0)).collect())
                .collect();
            let of_second = (0..).zip(&second).map(|(o, weights)| {
                let sum = dot(&inputs[(o / width) as usize], weights);
                (sum + biased(self.second_bias, o)).max(0.0)
            });
            let (_, mixed) = gate(gates as usize, &logits, &of_second.collect::<Vec<f64>>());
            error.add_all(&bench.row(self.mixed, row)?, &mixed);
        }
        Ok(error.relative())
    }

    /// Compares gradients at the inputs, computed from the values that the layers have on the device: next to the kink of
    /// ReLU theirs may be on the other side. Gradients of weights are compared where their products are alone.
    fn compare_backward(&self, bench: &Workbench) -> Result<f64, DeviceError> {
        let Layers { batch, inputs, hidden, width, gates, .. } = self.layers;
        let (first, second) = (rows_of(self.first), rows_of(self.second));
        let (experts_at, logits_at) = self.parts(self.hidden);
        let mut error = Error::default();
        for row in sample(batch, COMPARED) {
            let (experts, logits) = (bench.row(experts_at, row)?, bench.row(logits_at, row)?);
            let bank = bench.row(self.bank, row)?;
            let (weights, _) = gate(gates as usize, &logits, &bank);
            let (d_logits, mut d_bank) = gate_dx(gates as usize, &weights, &bank, &self.d_mixed.row(row));
            d_bank.iter_mut().zip(&bank).for_each(|(d, &y)| *d = if y > 0.0 { *d } else { 0.0 });
            let mut d_first = vec![0.0; experts.len()];
            for (out, (d, weights)) in d_bank.iter().zip(&second).enumerate() {
                let group = out / width as usize * hidden as usize;
                add_scaled(&mut d_first[group..][..hidden as usize], *d, weights);
            }
            d_first.iter_mut().zip(&experts).for_each(|(d, &y)| *d = if y > 0.0 { *d } else { 0.0 });
            d_first.extend(d_logits);
            let mut dx = vec![0.0; inputs as usize];
            d_first.iter().zip(&first).for_each(|(d, weights)| add_scaled(&mut dx, *d, weights));
            error.add_all(&bench.row(self.dx, row)?, &dx);
        }
        Ok(error.relative())
    }
}

fn rows_of(mat: Random) -> Vec<Vec<f64>> {
    (0..mat.mat.rows).map(|row| mat.row(row)).collect()
}

fn add_scaled(to: &mut [f64], factor: f64, row: &[f64]) {
    to.iter_mut().zip(row).for_each(|(to, value)| *to += factor * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_that_of_a_batch() {
        let [large, small] = Layers::all(Size::Full);
        let gigaflops = |layers: Layers| layers.cases(Precision::Bf16).map(|case| case.work.flops * 1e-9);
        let [both, forward] = gigaflops(small);
        assert!((forward - 43.5).abs() < 0.1 && (both - 130.5).abs() < 0.3, "{forward} and {both}");
        assert!((gigaflops(large)[1] - 174.0).abs() < 0.5);
        let megabytes = large.cases(Precision::Bf16)[1].work.bytes * 1e-6;
        assert!((megabytes - 120.0).abs() < 1.0, "{megabytes}");
    }
}
