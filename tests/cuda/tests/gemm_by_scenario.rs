//! Products by scenario on the device, against sums in f64 of operands that are rounded as a precision rounds them.

use manygate_cuda::gemm::{BiasGradient, Heads};
use manygate_cuda::gemm_by_scenario::{
    Layers, column_sums_by_scenario, linear_by_scenario, linear_dw_by_scenario,
    linear_dw_by_scenario_scratch, linear_dx_by_scenario, scenario_starts,
};
use manygate_cuda::{Element, Precision};
use manygate_cuda_tests::values::to_tf32;
use manygate_cuda_tests::{Gpu, Window, values};
use manygate_kernels::activation::Activation;
use proptest::prelude::*;

/// Most difference of a sum, relative to that of the absolute products.
const TOLERANCE: f64 = 2e-6;

/// Rows of scenarios, and layers over them.
#[derive(Clone, Debug)]
struct Case {
    precision: Precision,
    /// Rows of each scenario.
    counts: Vec<u32>,
    /// Rows that there is room for beyond those.
    spare: usize,
    groups: usize,
    shared: bool,
    inputs: usize,
    outputs: usize,
    /// Columns before and behind each matrix with a row a sample, in its larger matrix.
    around: (usize, usize),
    /// Of what is written a row a sample.
    element: Element,
    accumulate: bool,
    seed: u64,
}

impl Case {
    fn any() -> impl Strategy<Value = Case> {
        let size = || prop_oneof![3 => 1usize..20, 1 => Just(64), 1 => 126usize..131];
        let rows = prop_oneof![2 => Just(0u32), 3 => 1u32..20, 2 => 126u32..131, 1 => 255u32..300];
        let precision = prop_oneof![Just(Precision::F32), Just(Precision::Tf32), Just(Precision::Bf16)];
        let layers = (1usize..4, any::<bool>(), size(), size());
        let around = prop_oneof![Just((0, 0)), Just((16, 8)), (0usize..5, 0usize..5)];
        let rest = (around, any::<bool>(), any::<bool>(), any::<u64>());
        (precision, prop::collection::vec(rows, 1..5), 0usize..3, layers, rest).prop_map(
            |(
                precision,
                counts,
                spare,
                (groups, shared, inputs, outputs),
                (around, is_bf16, accumulate, seed),
            )| {
                let element = if is_bf16 { Element::Bf16 } else { Element::F32 };
                let groups = if inputs * outputs > 2000 { 1 } else { groups };
                let spare = 70 * spare;
                Case {
                    precision,
                    counts,
                    spare,
                    groups,
                    shared,
                    inputs,
                    outputs,
                    around,
                    element,
                    accumulate,
                    seed,
                }
            },
        )
    }

    fn rows(&self) -> usize {
        self.counts.iter().sum::<u32>() as usize
    }

    fn weights(&self) -> usize {
        self.counts.len() * if self.shared { 1 } else { self.groups }
    }

    /// Weight number of a row and a group.
    fn weight_of(&self, row: usize, group: usize) -> usize {
        let ends = self.counts.iter().scan(0, |end, count| {
            *end += *count as usize;
            Some(*end)
        });
        let scenario = ends.take_while(|end| *end <= row).count();
        if self.shared { scenario } else { scenario * self.groups + group }
    }

    fn layers(&self, gpu: &mut Gpu) -> Layers {
        let starts = gpu.upload(&scenario_starts(&self.counts));
        Layers::new(starts, self.counts.len(), self.groups, self.shared)
    }

    fn operand(&self) -> Element {
        if self.precision == Precision::Bf16 { Element::Bf16 } else { Element::F32 }
    }

    fn samples(&self, cols: usize, element: Element) -> Window {
        let (before, behind) = self.around;
        let rows = self.rows();
        Window { rows: rows + self.spare, live: rows, cols: self.groups * cols, before, behind, element }
    }

    fn weight(&self) -> Window {
        Window { element: self.operand(), ..Window::whole(self.weights() * self.outputs, self.inputs) }
    }

    /// Values of an operand, and those that are there as they are multiplied.
    fn values(&self, window: Window, salt: u64) -> (Vec<f32>, Vec<f64>) {
        let all = window.values(self.seed ^ salt, 1.0);
        let round = |v: f32| f64::from(if self.precision == Precision::Tf32 { to_tf32(v) } else { v });
        let live = window.live_values(&all).into_iter().map(round).collect();
        (all, live)
    }
}

/// Sums, and those of absolute values.
struct Sums {
    values: Vec<f64>,
    most: Vec<f64>,
}

impl Sums {
    fn of(start: Vec<f64>) -> Sums {
        Sums { most: start.iter().map(|v| v.abs()).collect(), values: start }
    }

    fn add(&mut self, at: usize, value: f64) {
        self.values[at] += value;
        self.most[at] += value.abs();
    }

    /// Where `found`, the live values of `window`, is not this.
    fn wrong(&self, window: Window, found: &[f32]) -> Option<String> {
        let is_bf16 = window.element == Element::Bf16;
        (0..found.len()).find_map(|i| {
            let rounding = if is_bf16 { self.values[i].abs() / 256.0 } else { 0.0 };
            let fits = (f64::from(found[i]) - self.values[i]).abs() <= TOLERANCE * self.most[i] + rounding;
            let at = (i / window.cols, i % window.cols);
            (!fits).then(|| format!("value {at:?}: {}, not {}", found[i], self.values[i]))
        })
    }
}

fn start(window: Window, before: &[f32], accumulate: bool) -> Vec<f64> {
    let live = window.live_values(before).into_iter().map(f64::from);
    if accumulate { live.collect() } else { vec![0.0; live.len()] }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rows_are_multiplied_by_the_weights_of_their_scenario(case in Case::any(), has_bias: bool, is_relu: bool) {
        let (groups, inputs, outputs) = (case.groups, case.inputs, case.outputs);
        let (x, weight) = (case.samples(inputs, case.operand()), case.weight());
        let y = case.samples(outputs, case.element);
        let ((all_x, live_x), (all_weight, live_weight)) = (case.values(x, 1), case.values(weight, 2));
        let bias = values(case.seed ^ 3, case.weights() * outputs, 1.0);
        let mut expected = Sums::of(vec![0.0; y.live * y.cols]);
        for (at, (row, column)) in (0..y.live).flat_map(|r| (0..y.cols).map(move |c| (r, c))).enumerate() {
            let group = column / outputs;
            let unit = case.weight_of(row, group) * outputs + column % outputs;
            for k in 0..inputs {
                expected.add(at, live_x[row * x.cols + group * inputs + k] * live_weight[unit * inputs + k]);
            }
            expected.add(at, if has_bias { f64::from(bias[unit]) } else { 0.0 });
            expected.values[at] = if is_relu { expected.values[at].max(0.0) } else { expected.values[at] };
        }

        let mut gpu = Gpu::with_order(case.seed);
        let layers = case.layers(&mut gpu);
        let before = y.values(case.seed ^ 4, 1.0);
        let (x, weight, to) =
            (x.upload(&mut gpu, &all_x), weight.upload(&mut gpu, &all_weight), y.upload(&mut gpu, &before));
        let bias = if has_bias { gpu.upload(&bias) } else { 0 };
        let heads =
            Heads::one(outputs as u32, bias, if is_relu { Activation::Relu } else { Activation::Identity });
        gpu.launch(&linear_by_scenario(case.precision, layers, x, weight, &heads, to));
        let found = y.download(&mut gpu, to);
        prop_assert_eq!(expected.wrong(y, &y.live_values(&found)), None, "groups {}", groups);
        prop_assert_eq!(y.replaced(&before, &y.live_values(&found)), found, "outside");
    }

    #[test]
    fn gradients_of_inputs_go_through_the_weights_of_their_scenario(case in Case::any(), masks: bool) {
        let (inputs, outputs) = (case.inputs, case.outputs);
        let (dy, weight) = (case.samples(outputs, case.operand()), case.weight());
        let dx = case.samples(inputs, case.element);
        let ((all_dy, live_dy), (all_weight, live_weight)) = (case.values(dy, 1), case.values(weight, 2));
        let (before, mask) = (dx.values(case.seed ^ 4, 1.0), dx.values(case.seed ^ 5, 1.0));
        let mut expected = Sums::of(start(dx, &before, case.accumulate));
        let live_mask = dx.live_values(&mask);
        for (at, (row, column)) in (0..dx.live).flat_map(|r| (0..dx.cols).map(move |c| (r, c))).enumerate() {
            let (group, k) = (column / inputs, column % inputs);
            let first = case.weight_of(row, group) * outputs;
            for unit in 0..outputs {
                let d = live_dy[row * dy.cols + group * outputs + unit];
                expected.add(at, d * live_weight[(first + unit) * inputs + k]);
            }
            expected.values[at] *= f64::from(!masks || live_mask[at] > 0.0);
        }

        let mut gpu = Gpu::with_order(case.seed);
        let layers = case.layers(&mut gpu);
        let (dy, weight) = (dy.upload(&mut gpu, &all_dy), weight.upload(&mut gpu, &all_weight));
        let (to, mask) = (dx.upload(&mut gpu, &before), dx.upload(&mut gpu, &mask));
        let mask = masks.then_some((Activation::Relu, mask));
        gpu.launch(&linear_dx_by_scenario(case.precision, layers, dy, weight, case.accumulate, mask, to));
        let found = dx.download(&mut gpu, to);
        prop_assert_eq!(expected.wrong(dx, &dx.live_values(&found)), None);
        prop_assert_eq!(dx.replaced(&before, &dx.live_values(&found)), found, "outside");
    }

    #[test]
    fn gradients_of_weights_are_sums_over_the_rows_of_their_scenario(case in Case::any(), has_bias: bool) {
        let (inputs, outputs) = (case.inputs, case.outputs);
        let (dy, x) = (case.samples(outputs, case.operand()), case.samples(inputs, case.operand()));
        let dw = Window { element: Element::F32, ..case.weight() };
        let db = Window::whole(1, case.weights() * outputs);
        let ((all_dy, live_dy), (all_x, live_x)) = (case.values(dy, 1), case.values(x, 2));
        let (before, before_db) = (dw.values(case.seed ^ 3, 1.0), db.values(case.seed ^ 4, 1.0));
        let mut expected = Sums::of(start(dw, &before, case.accumulate));
        let mut expected_db = Sums::of(start(db, &before_db, case.accumulate));
        let summed = dy.live_values(&all_dy);
        for (row, column) in (0..dy.live).flat_map(|r| (0..dy.cols).map(move |c| (r, c))) {
            let group = column / outputs;
            let unit = case.weight_of(row, group) * outputs + column % outputs;
            for k in 0..inputs {
                let x = live_x[row * x.cols + group * inputs + k];
                expected.add(unit * inputs + k, live_dy[row * dy.cols + column] * x);
            }
            expected_db.add(unit, f64::from(summed[row * dy.cols + column]));
        }

        let run = |order: u64| {
            let mut gpu = Gpu::with_order(order);
            let layers = case.layers(&mut gpu);
            let (dy, x) = (dy.upload(&mut gpu, &all_dy), x.upload(&mut gpu, &all_x));
            let (to, to_db) = (dw.upload(&mut gpu, &before), gpu.upload(&before_db));
            let scratch = linear_dw_by_scenario_scratch(dy.rows, inputs as u32, outputs as u32, layers);
            let scratch = gpu.allocate::<f32>(scratch);
            let bias = BiasGradient { dy, accumulate: case.accumulate, to: to_db };
            let beside = has_bias.then_some(bias);
            let (precision, add) = (case.precision, case.accumulate);
            let mut launches = linear_dw_by_scenario(precision, layers, dy, x, add, to, beside, scratch);
            if !has_bias {
                launches.extend(column_sums_by_scenario(layers, bias, scratch));
            }
            launches.iter().for_each(|launch| gpu.launch(launch));
            (dw.download(&mut gpu, to), gpu.download::<f32>(to_db, before_db.len()))
        };
        let (found, found_db) = run(0);
        prop_assert_eq!(expected.wrong(dw, &found), None);
        prop_assert_eq!(expected_db.wrong(db, &found_db), None, "bias");
        prop_assert_eq!(run(case.seed | 1), (found, found_db), "the order of warps shows");
    }
}

#[test]
fn starts_are_of_rows_and_of_tiles() {
    assert_eq!(scenario_starts(&[5, 0, 200]), [0, 5, 5, 205, 0, 1, 1, 3]);
}
