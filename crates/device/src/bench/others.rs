//! Kernels that move more than they multiply: gates, dense Adam, the loss, dropout, activations, sums of columns.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::losses::sigmoid;
use super::mmoe::{Layers, tolerance};
use super::reference::{Error, gate, gate_dx, sample};
use super::workbench::Workbench;
use manygate_cuda::activation::{activate_to, activation_dx_to};
use manygate_cuda::device::DeviceError;
use manygate_cuda::gate::{gate_combine, gate_combine_dx};
use manygate_cuda::loss::{LossSum, bce_with_logits, partials_of};
use manygate_cuda::optim::{Clipping, Parameters, Piece, Step, clip_factor, optimise, sum_squares};
use manygate_cuda::peak::Stream;
use manygate_cuda::random::dropout;
use manygate_cuda::{DeviceMat, Element, Precision, gemm};
use manygate_kernels::activation::Activation;
use manygate_kernels::optim::AdamStep;
use manygate_kernels::random::{self, Dropping};
use manygate_kernels::{Isa, Mat, MatMut};

/// Rows that are compared.
const COMPARED: u32 = 16;
/// Values of a vector that are compared.
const COMPARED_VALUES: u32 = 4096;
const ELEMENTS: [(Precision, Element); 2] =
    [(Precision::F32, Element::F32), (Precision::Bf16, Element::Bf16)];
/// The activation that costs most.
const SIGMOID: Activation = Activation::Sigmoid;
const KEY: [u32; 2] = [7, 9];

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [layers, _] = Layers::all(size);
    let (rows, cols) = (layers.batch, layers.experts * layers.hidden);
    let (parameters, labelled) = match size {
        Size::Full => (10_000_000, 1 << 24),
        Size::Small => (3000, 1000),
    };
    let of_elements = ELEMENTS.iter().flat_map(|&(precision, element)| {
        let matrix = Matrix { rows, cols, precision, element };
        let gates = Gates { layers, precision, element };
        [gates.forward(), gates.backward(), matrix.dropout(), matrix.activate(), matrix.activation_dx()]
            .into_iter()
            .chain([matrix.column_sums()])
    });
    [adam(parameters), clipping(parameters), bce(labelled)].into_iter().chain(of_elements).collect()
}

/// Gates over the bank of `mmoe.rs`, whose values and logits are `element`.
#[derive(Clone, Copy)]
struct Gates {
    layers: Layers,
    precision: Precision,
    element: Element,
}

impl Gates {
    fn case(
        self,
        kernel: &'static str,
        values: u32,
        prepare: fn(Gates, &mut Workbench) -> Result<Prepared, DeviceError>,
    ) -> Case {
        let Layers { batch, experts, width, gates, .. } = self.layers;
        let weights = 4.0 * f64::from(gates * experts);
        let bytes = f64::from(batch) * (f64::from(values) * self.element.bytes() as f64 + weights);
        Case {
            kernel,
            shape: Shape::new(&[("batch", batch), ("gates", gates), ("experts", experts), ("width", width)]),
            precision: self.precision,
            work: Work { bytes, flops: 0.0 },
            tolerance: tolerance(self.precision),
            prepare: Box::new(move |bench| prepare(self, bench)),
        }
    }

    /// Columns of logits, of the bank, and of what is mixed.
    fn cols(&self) -> [u32; 3] {
        let Layers { experts, width, gates, .. } = self.layers;
        [gates * experts, experts * width, gates * width]
    }

    fn forward(self) -> Case {
        self.case("gate_combine", self.cols().iter().sum(), Gates::prepare_forward)
    }

    fn backward(self) -> Case {
        let [logits, bank, mixed] = self.cols();
        self.case("gate_combine_dx", logits + 2 * bank + mixed, Gates::prepare_backward)
    }

    fn prepare_forward(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let (Layers { batch, gates, .. }, element) = (self.layers, self.element);
        let [logit_cols, bank_cols, mixed_cols] = self.cols();
        let logits = bench.random(batch, logit_cols, element, 2.0)?;
        let bank = bench.random(batch, bank_cols, element, 1.0)?;
        let weights = bench.mat(batch, logit_cols, Element::F32)?;
        let mixed = bench.mat(batch, mixed_cols, element)?;
        let launch = gate_combine(gates, logits.mat, bank.mat, weights, mixed);
        Prepared::new(vec![launch], move |bench| {
            let (mut of_weights, mut of_mixed) = (Error::default(), Error::default());
            for row in sample(batch, COMPARED) {
                let expected = gate(gates as usize, &logits.row(row), &bank.row(row));
                of_weights.add_all(&bench.row(weights, row)?, &expected.0);
                of_mixed.add_all(&bench.row(mixed, row)?, &expected.1);
            }
            Ok(of_weights.relative().max(of_mixed.relative()))
        })
    }

    fn prepare_backward(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let (Layers { batch, gates, .. }, element) = (self.layers, self.element);
        let [logit_cols, bank_cols, mixed_cols] = self.cols();
        // The formula holds for any weights.
        let weights = bench.random(batch, logit_cols, Element::F32, 1.0)?;
        let bank = bench.random(batch, bank_cols, element, 1.0)?;
        let d_mixed = bench.random(batch, mixed_cols, element, 1.0)?;
        let d_logits = bench.mat(batch, logit_cols, element)?;
        let d_bank = bench.mat(batch, bank_cols, element)?;
        let launch =
            gate_combine_dx(gates, weights.mat, bank.mat, d_mixed.mat, false, d_logits, false, None, d_bank);
        Prepared::new(vec![launch], move |bench| {
            let (mut of_logits, mut of_bank) = (Error::default(), Error::default());
            for row in sample(batch, COMPARED) {
                let (weights, bank, d_mixed) = (weights.row(row), bank.row(row), d_mixed.row(row));
                let expected = gate_dx(gates as usize, &weights, &bank, &d_mixed);
                of_logits.add_all(&bench.row(d_logits, row)?, &expected.0);
                of_bank.add_all(&bench.row(d_bank, row)?, &expected.1);
            }
            Ok(of_logits.relative().max(of_bank.relative()))
        })
    }
}

/// Kernels on a matrix of `element`.
#[derive(Clone, Copy)]
struct Matrix {
    rows: u32,
    cols: u32,
    precision: Precision,
    element: Element,
}

impl Matrix {
    /// `times`: how often the bytes of the matrix are moved.
    fn case(
        self,
        kernel: &'static str,
        times: f64,
        prepare: fn(Matrix, &mut Workbench) -> Result<Prepared, DeviceError>,
    ) -> Case {
        let values = f64::from(self.rows) * f64::from(self.cols);
        Case {
            kernel,
            shape: Shape::new(&[("rows", self.rows), ("cols", self.cols)]),
            precision: self.precision,
            work: Work { bytes: times * values * self.element.bytes() as f64, flops: 0.0 },
            tolerance: tolerance(self.precision),
            prepare: Box::new(move |bench| prepare(self, bench)),
        }
    }

    fn mat(&self, bench: &mut Workbench) -> Result<DeviceMat, DeviceError> {
        bench.mat(self.rows, self.cols, self.element)
    }

    fn dropout(self) -> Case {
        self.case("dropout", 2.0, |of, bench| {
            let (x, y) = (bench.random(of.rows, of.cols, of.element, 1.0)?, of.mat(bench)?);
            let dropping = Dropping::new(0.2);
            let launch = dropout(bench.upload_u32(KEY)?, 0, None, dropping, false, x.mat, y);
            Prepared::new(vec![launch], move |bench| {
                of.compare(bench, y, &|row| {
                    let values: Vec<f32> = (0..of.cols).map(|col| x.at(row, col)).collect();
                    let mut dropped = vec![0.0; values.len()];
                    let (from, to) =
                        (Mat::new(&values, 1, values.len()), MatMut::new(&mut dropped, 1, values.len()));
                    random::dropout(Isa::best(), KEY, row.into(), &[], dropping, false, from, to);
                    dropped.into_iter().map(f64::from).collect()
                })
            })
        })
    }

    fn activate(self) -> Case {
        self.case("activate", 2.0, |of, bench| {
            let (x, y) = (bench.random(of.rows, of.cols, of.element, 4.0)?, of.mat(bench)?);
            Prepared::new(vec![activate_to(SIGMOID, x.mat, y)], move |bench| {
                of.compare(bench, y, &|row| x.row(row).into_iter().map(sigmoid).collect())
            })
        })
    }

    fn activation_dx(self) -> Case {
        self.case("activation_dx", 3.0, |of, bench| {
            let y = bench.random(of.rows, of.cols, of.element, 1.0)?;
            let dy = bench.random(of.rows, of.cols, of.element, 1.0)?;
            let dx = of.mat(bench)?;
            let launch = activation_dx_to(SIGMOID, y.mat, dy.mat, false, dx);
            Prepared::new(vec![launch], move |bench| {
                let expected = |(y, dy): (f64, f64)| dy * y * (1.0 - y);
                of.compare(bench, dx, &|row| y.row(row).into_iter().zip(dy.row(row)).map(expected).collect())
            })
        })
    }

    /// The gradient of a bias.
    fn column_sums(self) -> Case {
        let case = self.case("column_sums", 1.0, |of, bench| {
            let x = bench.random(of.rows, of.cols, of.element, 1.0)?;
            let sums = bench.allocate(4 * u64::from(of.cols))?;
            let scratch = bench.allocate(4 * gemm::column_sums_scratch(of.rows, of.cols) as u64)?;
            Prepared::new(gemm::column_sums(x.mat, false, sums, scratch), move |bench| {
                let found: Vec<f32> = bench.download(sums, of.cols as usize)?;
                let mut error = Error::default();
                for col in sample(of.cols, COMPARED) {
                    let expected: f64 = (0..of.rows).map(|row| f64::from(x.at(row, col))).sum();
                    error.add(found[col as usize], expected);
                }
                Ok(error.relative())
            })
        });
        // Sums are f32 whatever they are of.
        Case { tolerance: tolerance(Precision::F32), ..case }
    }

    fn compare(
        &self,
        bench: &Workbench,
        found: DeviceMat,
        expected: &dyn Fn(u32) -> Vec<f64>,
    ) -> Result<f64, DeviceError> {
        let mut error = Error::default();
        for row in sample(self.rows, COMPARED) {
            error.add_all(&bench.row(found, row)?, &expected(row));
        }
        Ok(error.relative())
    }
}

/// A step of Adam over all dense parameters: weight, two moments and gradient in, all but the gradient out.
fn adam(parameters: u32) -> Case {
    const RATE: f32 = 1e-3;
    const EPSILON: f32 = 1e-8;
    let (beta1, beta2) = (0.9, 0.999);
    let (correction1, correction2) = (1.0 - beta1, 1.0 - beta2);
    let step = AdamStep {
        rate: RATE,
        beta1,
        beta2,
        epsilon: EPSILON,
        correction1,
        correction2,
        l2: 0.0,
        weight_decay: 0.0,
    };
    Case::once("adam", &[("parameters", parameters)], 28.0 * f64::from(parameters), move |bench| {
        // As far as a step moves them: what moved is then as exact as what is there.
        let weights = bench.random_contiguous(1, parameters, Element::F32, RATE)?;
        let gradients = bench.random_contiguous(1, parameters, Element::F32, 1.0)?;
        let bytes = 4 * u64::from(parameters);
        let addresses = Parameters {
            weights: weights.mat.address,
            gradients: gradients.mat.address,
            first: bench.zeros(bytes)?,
            second: bench.zeros(bytes)?,
        };
        let (pieces, count) = pieces(parameters, bench)?;
        let groups = bench.upload(&Step::Adam(step).to_bytes())?;
        let launch = optimise(None, pieces, count, groups, Clipping::NONE, addresses);
        Prepared::new(vec![launch], move |bench| {
            let found: Vec<f32> = bench.download(addresses.weights, parameters as usize)?;
            let mut error = Error::default();
            for i in sample(parameters, COMPARED_VALUES) {
                // The first step goes against the sign, whatever the size.
                let g = f64::from(gradients.at(0, i));
                let moved = f64::from(found[i as usize]) - f64::from(weights.at(0, i));
                error.add(moved, -f64::from(RATE) * g / (g.abs() + f64::from(EPSILON)));
            }
            Ok(error.relative())
        })
    })
}

/// All parameters in pieces of one group: their address, and how many they are.
fn pieces(parameters: u32, bench: &mut Workbench) -> Result<(u64, u32), DeviceError> {
    let bytes: Vec<u8> = Piece::cut(0..parameters.into(), 0).flat_map(Piece::to_bytes).collect();
    Ok((bench.upload(&bytes)?, (bytes.len() / Piece::BYTES) as u32))
}

/// What makes the gradient of all dense parameters no longer than 1.
fn clipping(parameters: u32) -> Case {
    let bytes = 4.0 * f64::from(parameters);
    Case::once("clip_factor", &[("parameters", parameters)], bytes, move |bench| {
        let gradients = bench.random_contiguous(1, parameters, Element::F32, 1.0)?;
        let (pieces, count) = pieces(parameters, bench)?;
        let (partials, factor) = (bench.allocate(8 * u64::from(count))?, bench.allocate(4)?);
        let launches = vec![
            sum_squares(pieces, count, gradients.mat.address, partials),
            clip_factor(partials, count, 1.0, factor, bench.upload_u32([1])?),
        ];
        Prepared::new(launches, move |bench| {
            let squares: f64 = (0..parameters).map(|i| f64::from(gradients.at(0, i)).powi(2)).sum();
            let mut error = Error::default();
            error.add(bench.download::<f32>(factor, 1)?[0], squares.sqrt().recip());
            Ok(error.relative())
        })
    })
}

/// The sum of binary cross-entropies and its gradient: logit and label in, gradient out.
fn bce(rows: u32) -> Case {
    const LABELS: Stream = Stream(1 << 16);
    let scale = 1.0 / rows as f32;
    Case::once("bce_with_logits", &[("rows", rows)], 12.0 * f64::from(rows), move |bench| {
        let label = |row: u32| LABELS.id(row.into(), 2) as f32;
        let logits = bench.random_contiguous(rows, 1, Element::F32, 4.0)?;
        let labels = bench.upload_f32((0..rows).map(label))?;
        let d = bench.mat(rows, 1, Element::F32)?;
        let sum = bench.zeros(8)?;
        let loss = LossSum { sum, partials: bench.allocate(8 * u64::from(partials_of(rows)))? };
        let at = bench.upload_f32([scale])?;
        let launches = bce_with_logits(logits.mat, labels, None, at, Some((d, false)), Some(loss));
        Prepared::new(launches, move |bench| {
            let (found, sums): (Vec<f32>, Vec<f64>) =
                (bench.download(d.address, rows as usize)?, bench.download(sum, 1)?);
            let (mut of_gradient, mut of_sum, mut expected) = (Error::default(), Error::default(), 0.0);
            for row in 0..rows {
                let (z, y) = (f64::from(logits.at(row, 0)), f64::from(label(row)));
                expected += z.max(0.0) - z * y + (-z.abs()).exp().ln_1p();
                if row % (rows / COMPARED_VALUES.min(rows)) == 0 {
                    of_gradient.add(found[row as usize], f64::from(scale) * (sigmoid(z) - y));
                }
            }
            of_sum.add(sums[0], expected);
            Ok(of_gradient.relative().max(of_sum.relative()))
        })
    })
}
