//! The products of the layers of `mmoe.rs`, one by one.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::mmoe::{Layers, PRECISIONS, stored, tolerance, weight_scale};
use super::reference::{Error, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::gemm::{self, Heads};
use manygate_cuda::gemm_by_scenario::{
    self, column_sums_by_scenario, linear_by_scenario, linear_dw_by_scenario, linear_dw_by_scenario_scratch,
    linear_dx_by_scenario, scenario_starts,
};
use manygate_cuda::gemm_gradients::{InputGradient, WeightGradient, grouped_linear_gradients};
use manygate_cuda::{DeviceMat, Element, Precision};
use manygate_kernels::activation::Activation;

const RELU: Activation = Activation::Relu;
/// Rows, and columns of each of them, that are compared.
const COMPARED: u32 = 12;

/// A layer, or layers side by side: `groups` of `inputs` to `outputs` units, with weights for each scenario.
#[derive(Clone, Copy, Debug)]
struct Product {
    precision: Precision,
    batch: u32,
    scenarios: u32,
    groups: u32,
    inputs: u32,
    outputs: u32,
}

/// Scenarios, as many as the bundled data has.
const SCENARIOS: u32 = 5;

/// All products of the larger batch in each precision.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [layers, _] = Layers::all(size);
    let Layers { batch, inputs, experts, hidden, width, gates } = layers;
    let of = |precision| {
        let product = |scenarios, groups, inputs, outputs| Product {
            precision,
            batch,
            scenarios,
            groups,
            inputs,
            outputs,
        };
        let first = product(1, 1, inputs, experts * hidden + gates * experts);
        let second = product(1, experts, hidden, width);
        let by_scenario = product(SCENARIOS, 1, inputs, hidden);
        [
            first.cases(["linear", "linear_dx", "linear_dw"]),
            second.cases(["grouped_linear", "grouped_linear_dx", "grouped_linear_dw"]),
            by_scenario.cases(["linear_by_scenario", "linear_dx_by_scenario", "linear_dw_by_scenario"]),
        ]
        .into_iter()
        .flatten()
        .chain([second.both()])
        // Biases have gradients of one precision: what they are summed of is f32 or bf16.
        .chain((precision != Precision::Tf32).then(|| by_scenario.bias_gradient()))
    };
    PRECISIONS.into_iter().rev().flat_map(of).collect()
}

impl Product {
    fn cases(self, [forward, dx, dw]: [&'static str; 3]) -> [Case; 3] {
        let Product { precision, batch, scenarios, groups, inputs, outputs } = self;
        let layers = groups * inputs * outputs;
        let [x, y, weight] = [batch * groups * inputs, batch * groups * outputs, scenarios * layers];
        let size = stored(precision).bytes() as f64;
        let flops = 2.0 * f64::from(batch) * f64::from(layers);
        let side_by_side = if scenarios > 1 { ("scenarios", scenarios) } else { ("groups", groups) };
        let shape = Shape::new(&[("batch", batch), side_by_side, ("inputs", inputs), ("outputs", outputs)]);
        let case =
            |kernel, bytes, prepare: fn(Product, &mut Workbench) -> Result<Prepared, DeviceError>| Case {
                kernel,
                shape: shape.clone(),
                precision,
                work: Work { bytes, flops },
                tolerance: tolerance(precision),
                prepare: Box::new(move |bench| prepare(self, bench)),
            };
        let [x, y, weight] = [x, y, weight].map(f64::from);
        // Where groups are masked, the values that the mask is of are read too.
        let masked = if groups > 1 { x } else { 0.0 };
        [
            case(forward, size * (x + y + weight), Product::prepare_forward),
            case(dx, size * (y + weight + x + masked), Product::prepare_dx),
            case(dw, size * (x + y) + 4.0 * weight, Product::prepare_dw),
        ]
    }

    /// Both gradients, of which Hopper has one kernel in bf16: dy and x once, dx, and the weight and its gradient.
    fn both(self) -> Case {
        let Product { precision, batch, groups, inputs, outputs, .. } = self;
        let [dx, _, _] = self.cases(["grouped_linear_gradients", "", ""]);
        let size = stored(precision).bytes() as f64;
        let (rows, weight) = (f64::from(batch * groups), f64::from(groups * inputs * outputs));
        let bytes = size * (rows * f64::from(2 * inputs + outputs) + weight) + 4.0 * weight;
        let work = Work { bytes, flops: 2.0 * dx.work.flops };
        Case { work, prepare: Box::new(move |bench| Product::prepare_both(self, bench)), ..dx }
    }

    /// The gradient of the biases of each scenario, whose sums are f32 whatever they are of.
    fn bias_gradient(self) -> Case {
        let Product { precision, batch, scenarios, outputs, .. } = self;
        let bytes = stored(precision).bytes() as f64 * f64::from(batch) * f64::from(outputs);
        Case {
            kernel: "column_sums_by_scenario",
            shape: Shape::new(&[("batch", batch), ("scenarios", scenarios), ("outputs", outputs)]),
            precision,
            work: Work { bytes, flops: 0.0 },
            tolerance: tolerance(Precision::F32),
            prepare: Box::new(move |bench| Product::prepare_bias_gradient(self, bench)),
        }
    }

    /// A matrix with `cols` columns for each group and a row a sample.
    fn rows(&self, bench: &mut Workbench, cols: u32) -> Result<Random, DeviceError> {
        bench.random(self.batch, self.groups * cols, stored(self.precision), 1.0)
    }

    fn weight(&self, bench: &mut Workbench, scale: f32) -> Result<Random, DeviceError> {
        let rows = self.scenarios * self.groups * self.outputs;
        bench.random_contiguous(rows, self.inputs, stored(self.precision), scale)
    }

    /// The first row of a scenario: all have about as many.
    fn first_row(&self, scenario: u32) -> u32 {
        (u64::from(scenario) * u64::from(self.batch)).div_ceil(u64::from(self.scenarios)) as u32
    }

    /// The first row, in the weights, of those of a row of the batch.
    fn weights_of(&self, row: u32) -> u32 {
        let scenario = u64::from(row) * u64::from(self.scenarios) / u64::from(self.batch);
        scenario as u32 * self.groups * self.outputs
    }

    fn by_scenario(&self, bench: &mut Workbench) -> Result<gemm_by_scenario::Layers, DeviceError> {
        let count = |s: u32| self.first_row(s + 1) - self.first_row(s);
        let counts: Vec<u32> = (0..self.scenarios).map(count).collect();
        let starts = bench.upload_u32(scenario_starts(&counts))?;
        let (scenarios, groups) = (self.scenarios as usize, self.groups as usize);
        Ok(gemm_by_scenario::Layers::new(starts, scenarios, groups, false))
    }

    fn prepare_forward(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let Product { precision, batch, groups, inputs, outputs, .. } = self;
        let (x, weight) = (self.rows(bench, inputs)?, self.weight(bench, weight_scale(inputs))?);
        let bias = bench.random_contiguous(1, self.scenarios * groups * outputs, Element::F32, 0.1)?;
        let y = bench.mat(batch, groups * outputs, stored(precision))?;
        let (biases, weights) = (bias.mat.address, weight.mat);
        let heads = Heads::one(outputs, biases, RELU);
        let launch = linear_by_scenario(precision, self.by_scenario(bench)?, x.mat, weights, &heads, y);
        Prepared::new(vec![launch], move |bench| {
            let expected = |row: u32, col: u32| {
                let first = col / outputs * inputs;
                let unit = self.weights_of(row) + col;
                let sum = (0..inputs).map(|i| product(x.at(row, first + i), weight.at(unit, i))).sum::<f64>();
                (sum + f64::from(bias.at(0, unit))).max(0.0)
            };
            compare(bench, y, &expected)
        })
    }

    fn prepare_dx(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let Product { precision, batch, groups, inputs, outputs, .. } = self;
        let (dy, weight) = (self.rows(bench, outputs)?, self.weight(bench, weight_scale(outputs))?);
        let x = self.rows(bench, inputs)?;
        let dx = bench.mat(batch, groups * inputs, stored(precision))?;
        let mask = (groups > 1).then_some((RELU, x.mat));
        let layers = self.by_scenario(bench)?;
        let launch = linear_dx_by_scenario(precision, layers, dy.mat, weight.mat, false, mask, dx);
        Prepared::new(vec![launch], move |bench| self.compare_dx(bench, dy, weight, x, dx))
    }

    /// Groups are masked by x.
    fn compare_dx(
        &self,
        bench: &Workbench,
        dy: Random,
        weight: Random,
        x: Random,
        dx: DeviceMat,
    ) -> Result<f64, DeviceError> {
        let Product { groups, inputs, outputs, .. } = *self;
        compare(bench, dx, &|row, col| {
            let first = col / inputs * outputs;
            let unit = self.weights_of(row) + first;
            let term = |o| product(dy.at(row, first + o), weight.at(unit + o, col % inputs));
            let is_masked = groups > 1 && x.at(row, col) <= 0.0;
            if is_masked { 0.0 } else { (0..outputs).map(term).sum::<f64>() }
        })
    }

    fn prepare_dw(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let Product { precision, batch, scenarios, groups, inputs, outputs } = self;
        let (dy, x) = (self.rows(bench, outputs)?, self.rows(bench, inputs)?);
        let (layers, units) = (self.by_scenario(bench)?, groups * outputs);
        let dw = bench.mat_with(scenarios * units, inputs, inputs, Element::F32)?;
        let scratch = linear_dw_by_scenario_scratch(batch, inputs, outputs, layers);
        let scratch = bench.allocate(4 * scratch as u64)?;
        let launches = linear_dw_by_scenario(precision, layers, dy.mat, x.mat, false, dw, None, scratch);
        Prepared::new(launches, move |bench| self.compare_dw(bench, dy, x, dw))
    }

    fn compare_dw(
        &self,
        bench: &Workbench,
        dy: Random,
        x: Random,
        dw: DeviceMat,
    ) -> Result<f64, DeviceError> {
        let Product { groups, inputs, outputs, .. } = *self;
        compare(bench, dw, &|out, input| {
            let (scenario, unit) = (out / (groups * outputs), out % (groups * outputs));
            let col = unit / outputs * inputs + input;
            let rows = self.first_row(scenario)..self.first_row(scenario + 1);
            rows.map(|row| product(dy.at(row, unit), x.at(row, col))).sum::<f64>()
        })
    }

    fn prepare_bias_gradient(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let Product { batch, scenarios, inputs, outputs, .. } = self;
        let (dy, layers) = (self.rows(bench, outputs)?, self.by_scenario(bench)?);
        let db = bench.mat_with(scenarios, outputs, outputs, Element::F32)?;
        let scratch = linear_dw_by_scenario_scratch(batch, inputs, outputs, layers);
        let scratch = bench.allocate(4 * scratch as u64)?;
        let gradient = gemm::BiasGradient { dy: dy.mat, accumulate: false, to: db.address };
        Prepared::new(column_sums_by_scenario(layers, gradient, scratch), move |bench| {
            compare(bench, db, &|scenario, col| {
                let rows = self.first_row(scenario)..self.first_row(scenario + 1);
                rows.map(|row| f64::from(dy.at(row, col))).sum()
            })
        })
    }

    fn prepare_both(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let Product { precision, batch, groups, inputs, outputs, .. } = self;
        let (dy, x) = (self.rows(bench, outputs)?, self.rows(bench, inputs)?);
        let weight = self.weight(bench, weight_scale(outputs))?;
        let dx = bench.mat(batch, groups * inputs, stored(precision))?;
        let dw = bench.mat_with(groups * outputs, inputs, inputs, Element::F32)?;
        let scratch = bench.allocate(4 * gemm::linear_dw_scratch(batch, inputs, outputs, groups) as u64)?;
        let of_weight = WeightGradient { accumulate: false, to: dw };
        let of_input = InputGradient { accumulate: false, mask: Some((RELU, x.mat)), to: dx };
        let launches = grouped_linear_gradients(
            precision, groups, dy.mat, x.mat, weight.mat, of_weight, None, of_input, scratch,
        );
        Prepared::new(launches, move |bench| {
            let of_dx = self.compare_dx(bench, dy, weight, x, dx)?;
            Ok(of_dx.max(self.compare_dw(bench, dy, x, dw)?))
        })
    }
}

fn product(a: f32, b: f32) -> f64 {
    f64::from(a) * f64::from(b)
}

/// Compares values of some columns of some rows.
fn compare(
    bench: &Workbench,
    found: DeviceMat,
    expected: &dyn Fn(u32, u32) -> f64,
) -> Result<f64, DeviceError> {
    let mut error = Error::default();
    for row in sample(found.rows, COMPARED) {
        let values = bench.row(found, row)?;
        for col in sample(found.cols, COMPARED) {
            error.add(values[col as usize], expected(row, col));
        }
    }
    Ok(error.relative())
}
