//! Both gradients of layers, by a kernel each and by the one that Hopper has for both.

use crate::{Expected, Layers, Matrix, TOLERANCE, linear_dw, linear_dx, run_all};
use manygate_cuda::gemm::{self, BiasGradient};
use manygate_cuda::gemm_gradients::{
    InputGradient, WeightGradient, at_once, can_be_at_once, grouped_linear_gradients,
};
use manygate_cuda::{DeviceMat, Element, Launch, Precision};
use manygate_cuda_tests::{Gpu, Window, values};
use manygate_kernels::activation::Activation;
use proptest::prelude::*;

/// Layers that Hopper has the kernel for.
fn layers() -> impl Strategy<Value = Layers> {
    let rows = prop_oneof![1usize..3, 60usize..70, Just(128), Just(300)];
    let sizes = (1usize..3, rows, 0usize..12, prop::sample::select(&[136usize, 200, 256][..]));
    let places = (prop_oneof![Just((0, 0)), Just((16, 8))], prop_oneof![Just(0usize), 0usize..9]);
    (sizes, prop::sample::select(&[65usize, 72, 128][..]), places, any::<bool>(), any::<u64>()).prop_map(
        |((groups, rows, missing, inputs), outputs, (around, weight_padding), accumulate, seed)| Layers {
            precision: Precision::Bf16,
            groups,
            rows,
            live: rows.saturating_sub(missing.saturating_sub(6) * 13),
            inputs,
            outputs: if groups > 1 { outputs.next_multiple_of(8) } else { outputs },
            around,
            weight_padding,
            aligned: true,
            element: Element::Bf16,
            accumulate,
            on_hopper: true,
            wide: false,
            seed,
        },
    )
}

/// What the launches of both gradients read and write.
struct Operands {
    gpu: Gpu,
    groups: u32,
    dy: DeviceMat,
    x: DeviceMat,
    weights: DeviceMat,
    dw: WeightGradient,
    db: BiasGradient,
    dx: InputGradient,
    scratch: u64,
}

impl Operands {
    /// On Hopper in one launch, however few rows there are.
    fn at_once(&self) -> Vec<Launch> {
        let Operands { groups, dy, x, weights, dw, db, dx, scratch, .. } = *self;
        assert!(can_be_at_once(Precision::Bf16, groups, dy, x, dx), "{dy:?}, {x:?}, {dx:?}");
        let mut launches =
            gemm::grouped_linear_dw(Precision::Bf16, groups, dy, x, dw.accumulate, dw.to, Some(db), scratch);
        launches[0].on_hopper = at_once(&launches[0], weights, dx).map(Box::new);
        let of_inputs =
            gemm::grouped_linear_dx(Precision::Bf16, groups, dy, weights, dx.accumulate, dx.mask, dx.to);
        launches.push(left_out_on_hopper(of_inputs));
        launches
    }
}

/// What only a device of another kind runs.
fn left_out_on_hopper(launch: Launch) -> Launch {
    Launch { on_hopper: Some(Box::new(Launch { grid: [0; 3], ..launch.clone() })), ..launch }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_at_once_are_those_of_the_cpu(layers in layers(), act in 0usize..3) {
        let (dy, x) = (layers.samples(layers.outputs, Element::Bf16), layers.samples(layers.inputs, Element::Bf16));
        let weights = layers.weight();
        let dw = Window { element: Element::F32, ..weights };
        let dx = Window { before: x.behind, behind: x.before, ..x };
        let ((all_dy, live_dy), (all_x, live_x)) = (layers.values(dy, 1), layers.values(x, 2));
        let (all_weights, live_weights) = layers.values(weights, 3);
        let (dw_before, dx_before) = (dw.values(layers.seed ^ 4, 1.0), dx.values(layers.seed ^ 5, 1.0));
        let start = match layers.accumulate {
            true => Matrix { rows: dw.rows, cols: dw.cols, data: dw.live_values(&dw_before) },
            false => Matrix::filled(dw.rows, dw.cols, 0.0),
        };
        let of_weights = Expected::new(|most| if most {
            linear_dw(&layers, &live_dy.absolute(), &live_x.absolute(), start.absolute())
        } else {
            linear_dw(&layers, &live_dy, &live_x, start.clone())
        });
        let none = Matrix::filled(dx.live, dx.cols, 0.0);
        let act = [None, Some(Activation::Identity), Some(Activation::Relu)][act];
        let of_inputs = Expected::new(|most| if most {
            linear_dx(&layers, &live_dy.absolute(), &live_weights.absolute(), None, none.clone())
        } else {
            linear_dx(&layers, &live_dy, &live_weights, act.map(|act| (act, &live_x)), none.clone())
        });

        let mut gpu = layers.device();
        let (rows, groups) = (layers.rows as u32, layers.groups as u32);
        let scratch = gemm::linear_dw_scratch(rows, layers.inputs as u32, layers.outputs as u32, groups);
        let (db, scratch) = (gpu.allocate::<f32>(dy.cols), gpu.allocate::<f32>(scratch));
        let (at_dy, at_x) = (dy.upload(&mut gpu, &all_dy), x.upload(&mut gpu, &all_x));
        let mut on_device = Operands {
            groups,
            dy: at_dy,
            x: at_x,
            weights: weights.upload(&mut gpu, &all_weights),
            dw: WeightGradient { accumulate: layers.accumulate, to: dw.upload(&mut gpu, &dw_before) },
            db: BiasGradient { dy: at_dy, accumulate: false, to: db },
            dx: InputGradient {
                accumulate: false,
                mask: act.map(|act| (act, at_x)),
                to: dx.upload(&mut gpu, &dx_before),
            },
            scratch,
            gpu,
        };
        let launches = on_device.at_once();
        run_all(&mut on_device.gpu, &launches);
        let Operands { mut gpu, dw: WeightGradient { to: dw_at, .. }, dx: InputGradient { to: dx_at, .. }, .. } =
            on_device;
        prop_assert_eq!(of_weights.wrong(dw, &dw_before, &dw.download(&mut gpu, dw_at)), None, "dw");
        prop_assert_eq!(of_inputs.wrong(dx, &dx_before, &dx.download(&mut gpu, dx_at)), None, "dx");
        let found = gpu.download::<f32>(db, dy.cols);
        for (col, found) in found.into_iter().enumerate() {
            let column = || (0..live_dy.rows).map(|row| live_dy.data[row * live_dy.cols + col]);
            let (sum, most): (f32, f32) = (column().sum(), column().map(f32::abs).sum());
            prop_assert!((found - sum).abs() <= 2.0 * TOLERANCE * most, "db {}: {}, not {}", col, found, sum);
        }
    }
}

/// The families that both gradients are of on Hopper, and whether it leaves the second launch out.
fn on_hopper(rows: u32, inputs: u32, outputs: u32, accumulate: bool) -> (&'static str, bool) {
    let mat = |rows, cols| DeviceMat { element: Element::Bf16, ..DeviceMat::new(1 << 20, rows, cols) };
    let (dy, x, weights) = (mat(rows, outputs), mat(rows, inputs), mat(outputs, inputs));
    let dw = WeightGradient { accumulate: false, to: DeviceMat::new(1 << 20, outputs, inputs) };
    let dx = InputGradient { accumulate, mask: Some((Activation::Relu, x)), to: x };
    let launches = grouped_linear_gradients(Precision::Bf16, 1, dy, x, weights, dw, None, dx, 1 << 20);
    let of_input = launches.last().and_then(|launch| launch.on_hopper.as_ref()).expect("the gradient of x");
    let of_weight = launches[0].on_hopper.as_ref().expect("that of the weight");
    (of_weight.family.name, of_input.grid.contains(&0))
}

#[test]
fn layers_that_wait_for_memory_have_both_at_once() {
    assert_eq!(on_hopper(65536, 256, 128, false), ("gemm_hopper_gradients", true));
    for (rows, inputs, outputs, accumulate) in [
        (1024, 256, 128, false),
        (65536, 264, 128, false),
        (65536, 256, 136, false),
        (65536, 128, 64, false),
        (65536, 256, 128, true),
    ] {
        let (family, is_left_out) = on_hopper(rows, inputs, outputs, accumulate);
        assert!(family != "gemm_hopper_gradients" && !is_left_out, "{rows}, {inputs}, {outputs}: {family}");
    }
}

#[test]
fn the_order_of_warps_changes_no_bits_of_both() {
    let bits = |seed: u64| {
        let mut gpu = Gpu::of_capability((9, 0));
        gpu.seed = seed;
        let mat = |gpu: &mut Gpu, rows, cols, salt| {
            let window = Window { element: Element::Bf16, ..Window::whole(rows, cols) };
            window.upload(gpu, &window.values(salt, 1.0))
        };
        let (dy, x, weights) =
            (mat(&mut gpu, 300, 128, 1), mat(&mut gpu, 300, 256, 2), mat(&mut gpu, 128, 256, 3));
        let (dw, dx) = (gpu.upload(&values(4, 128 * 256, 1.0)), mat(&mut gpu, 300, 256, 5));
        let scratch = gpu.allocate::<f32>(gemm::linear_dw_scratch(300, 256, 128, 1));
        let to = DeviceMat::new(dw, 128, 256);
        let mut launches = gemm::linear_dw(Precision::Bf16, dy, x, false, to, None, scratch);
        let input = InputGradient { accumulate: false, mask: None, to: dx };
        launches[0].on_hopper = at_once(&launches[0], weights, input).map(Box::new);
        launches.push(left_out_on_hopper(gemm::linear_dx(Precision::Bf16, dy, weights, false, None, dx)));
        run_all(&mut gpu, &launches);
        (gpu.download::<u32>(dw, 128 * 256), gpu.download::<u16>(dx.address, 300 * 256))
    };
    let first = bits(0);
    (1..3).for_each(|seed| assert!(bits(seed) == first, "seed {seed}"));
}
