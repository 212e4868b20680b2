//! Products on the device against those of the CPU, whose operands are rounded as a precision rounds them.

mod gradients;

use manygate_cuda::gemm::{self as cuda, Casts, Head, Heads};
use manygate_cuda::{DeviceMat, Element, Launch, Precision};
use manygate_cuda_tests::values::to_tf32;
use manygate_cuda_tests::{Gpu, Window, first_difference, values};
use manygate_kernels::activation::Activation;
use manygate_kernels::gemm::{self, Packed};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// Most difference of a sum, relative to that of the absolute products.
const TOLERANCE: f32 = 2e-6;

/// Groups of layers: rows, columns a group, and where the operands lie.
#[derive(Clone, Debug)]
struct Layers {
    precision: Precision,
    groups: usize,
    rows: usize,
    live: usize,
    inputs: usize,
    outputs: usize,
    /// Columns before and behind each matrix with a row a sample, in its larger matrix.
    around: (usize, usize),
    /// Columns behind the weight.
    weight_padding: usize,
    /// Whether as many follow as make strides multiples of 16.
    aligned: bool,
    /// Of the output.
    element: Element,
    accumulate: bool,
    /// Whether the device is one of compute capability 9.0.
    on_hopper: bool,
    /// Whether it makes wide tiles there, though a product is small, if operands lie so.
    wide: bool,
    seed: u64,
}

impl Layers {
    fn any() -> impl Strategy<Value = Layers> {
        let size = || prop_oneof![0usize..4, 5usize..40, Just(64), 126usize..132, Just(200), 255usize..260];
        let plain = prop_oneof![Just(Precision::F32), Just(Precision::Tf32), Just(Precision::Bf16)];
        let plain = plain.prop_map(|precision| (precision, false, false));
        let on_hopper = any::<bool>().prop_map(|wide| (Precision::Bf16, true, wide));
        let around = prop_oneof![Just((0, 0)), Just((16, 8)), (0usize..5, 0usize..5)];
        let element = prop_oneof![Just(Element::F32), Just(Element::Bf16)];
        let sizes = (1usize..4, size(), 0usize..12, size(), size());
        let places = (around, prop_oneof![Just(0usize), 0usize..9], any::<bool>(), element, any::<bool>());
        let layers = (prop_oneof![plain, on_hopper], sizes, places, any::<u64>());
        layers
            .prop_map(|((precision, on_hopper, wide), sizes, places, seed)| Layers {
                precision,
                groups: if sizes.3 * sizes.4 > 4000 { 1 } else { sizes.0 },
                rows: sizes.1,
                // Often all of them.
                live: sizes.1.saturating_sub(sizes.2.saturating_sub(6) * 13),
                inputs: sizes.3,
                outputs: sizes.4,
                around: places.0,
                weight_padding: places.1,
                aligned: places.2,
                element: places.3,
                accumulate: places.4,
                on_hopper,
                wide,
                seed,
            })
            .prop_map(Layers::lying_for_its_tiles)
    }

    /// With operands as wide tiles need them, where those are wanted.
    fn lying_for_its_tiles(self) -> Layers {
        if !self.wide {
            return self;
        }
        let of_groups = |cols: usize| if self.groups > 1 { cols.next_multiple_of(8) } else { cols };
        let (inputs, outputs) = (of_groups(self.inputs), of_groups(self.outputs));
        Layers { inputs, outputs, around: (self.around.0 / 8 * 8, self.around.1), aligned: true, ..self }
    }

    fn device(&self) -> Gpu {
        let mut gpu = Gpu::of_capability(if self.on_hopper { (9, 0) } else { (8, 0) });
        gpu.seed = self.seed;
        gpu
    }

    /// What the device is to run: where the kernels for all are wanted, a real one of capability 9.0 runs them too.
    fn wanted(&self, launch: Launch, operands: [DeviceMat; 2]) -> Launch {
        if self.wide {
            let [groups, inputs, outputs] =
                [self.groups, self.inputs, self.outputs].map(|count| count as u32);
            assert!(cuda::lie_for_wide_tiles(groups, inputs, outputs, operands), "{operands:?}");
            // Those that add up sums are no products.
            let is_product = |own: &Launch| own.family.name == "gemm_hopper";
            let wide =
                |own: Box<Launch>| if is_product(&own) { Box::new(cuda::in_wide_tiles(&own)) } else { own };
            return Launch { on_hopper: launch.on_hopper.map(wide), ..launch };
        }
        Launch { on_hopper: launch.on_hopper.filter(|_| self.on_hopper), ..launch }
    }

    /// A matrix with a row a sample.
    fn samples(&self, cols: usize, element: Element) -> Window {
        let (before, behind) = self.around;
        let window =
            Window { rows: self.rows, live: self.live, cols: self.groups * cols, before, behind, element };
        self.padded(window)
    }

    fn padded(&self, window: Window) -> Window {
        let stride = if self.aligned { window.stride().next_multiple_of(16) } else { window.stride() };
        Window { behind: window.behind + stride - window.stride(), ..window }
    }

    fn operand(&self) -> Element {
        if self.precision == Precision::Bf16 { Element::Bf16 } else { Element::F32 }
    }

    fn weight(&self) -> Window {
        let (rows, behind) = (self.groups * self.outputs, self.weight_padding);
        self.padded(Window {
            rows,
            live: rows,
            cols: self.inputs,
            before: 0,
            behind,
            element: self.operand(),
        })
    }

    /// Values of an operand, and those of its rows that are there as the precision multiplies them.
    fn values(&self, window: Window, salt: u64) -> (Vec<f32>, Matrix) {
        let all = window.values(self.seed ^ salt, 1.0);
        let live = window.live_values(&all);
        let data = match self.precision {
            Precision::Tf32 => live.into_iter().map(to_tf32).collect(),
            _ => live,
        };
        (all, Matrix { rows: window.live, cols: window.cols, data })
    }
}

/// A matrix on the CPU.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    fn filled(rows: usize, cols: usize, value: f32) -> Matrix {
        Matrix { rows, cols, data: vec![value; rows * cols] }
    }

    fn view(&self) -> Mat<'_> {
        Mat::new(&self.data, self.rows, self.cols)
    }

    fn view_mut(&mut self) -> MatMut<'_> {
        MatMut::new(&mut self.data, self.rows, self.cols)
    }

    fn absolute(&self) -> Matrix {
        Matrix { data: self.data.iter().map(|v| v.abs()).collect(), ..*self }
    }
}

/// What a launch should have left, and how far from that each value may be.
struct Expected {
    values: Matrix,
    most: Matrix,
}

impl Expected {
    /// What `run` makes of the operands, and of their absolute values without the end of the product.
    fn new(run: impl Fn(bool) -> Matrix) -> Expected {
        Expected { values: run(false), most: run(true) }
    }

    /// Where `found`, the larger matrix of `window`, is not this inside and `before` outside.
    fn wrong(&self, window: Window, before: &[f32], found: &[f32]) -> Option<String> {
        let inside = window.live_values(found);
        if let Some(difference) = first_difference(found, &window.replaced(before, &inside)) {
            return Some(format!("outside: {difference}"));
        }
        for (i, (&found, &value)) in inside.iter().zip(&self.values.data).enumerate() {
            let rounding = if window.element == Element::Bf16 { value.abs() / 256.0 } else { 0.0 };
            let most = TOLERANCE * self.most.data[i] + rounding;
            let fits = (found - value).abs() <= most;
            if !fits {
                let (row, col) = (i / window.cols, i % window.cols);
                return Some(format!("value {row}, {col}: {found}, not {value} (to {most})"));
            }
        }
        None
    }
}

/// The CPU's forward pass.
fn linear(layers: &Layers, x: &Matrix, weight: &Matrix, bias: &[f32], heads: &[Head]) -> Matrix {
    let (isa, inputs, outputs) = (Isa::best(), layers.inputs, layers.outputs);
    let biased: usize = heads.iter().filter(|head| head.bias).map(|head| head.width as usize).sum();
    let mut y = Matrix::filled(x.rows, layers.groups * outputs, 0.0);
    for group in 0..layers.groups {
        let mut column = 0;
        for head in heads {
            let width = head.width as usize;
            let mut packed = vec![0.0; gemm::packed_len(inputs, width)];
            gemm::pack_transposed(isa, weight.view().row_range(group * outputs + column, width), &mut packed);
            let bias = if head.bias { &bias[group * biased + column..][..width] } else { &[] };
            let packed = Packed::new(&packed, inputs, width);
            let x = x.view().columns(group * inputs, inputs);
            let y = &mut y.view_mut();
            gemm::linear(isa, x, packed, bias, head.activation, y.columns(group * outputs + column, width));
            column += width;
        }
    }
    y
}

/// The CPU's gradient of the input, added to `dx`.
fn linear_dx(
    layers: &Layers,
    dy: &Matrix,
    weight: &Matrix,
    mask: Option<(Activation, &Matrix)>,
    mut dx: Matrix,
) -> Matrix {
    let (isa, inputs, outputs) = (Isa::best(), layers.inputs, layers.outputs);
    for group in 0..layers.groups {
        let mut packed = vec![0.0; gemm::packed_len(outputs, inputs)];
        gemm::pack(isa, weight.view().row_range(group * outputs, outputs), &mut packed);
        let dy = dy.view().columns(group * outputs, outputs);
        let mask = mask.map(|(act, y)| (act, y.view().columns(group * inputs, inputs)));
        let dx = &mut dx.view_mut();
        let dx = dx.columns(group * inputs, inputs);
        gemm::linear_dx(isa, dy, Packed::new(&packed, outputs, inputs), true, mask, dx);
    }
    dx
}

/// The CPU's gradient of the weight, added to `dw`.
fn linear_dw(layers: &Layers, dy: &Matrix, x: &Matrix, mut dw: Matrix) -> Matrix {
    let mut scratch = vec![0.0; gemm::linear_dw_scratch(x.rows, layers.inputs)];
    let to = dw.view_mut();
    gemm::grouped_linear_dw(Isa::best(), layers.groups, dy.view(), x.view(), true, to, &mut scratch);
    dw
}

const ACTIVATIONS: [Activation; 5] = [
    Activation::Relu,
    Activation::Identity,
    Activation::LeakyRelu(0.1),
    Activation::Tanh,
    Activation::Sigmoid,
];

/// Several heads of `width` columns in all, the first of them with a bias.
fn heads(width: usize, seed: u64) -> Vec<Head> {
    let count = 1 + seed as usize % cuda::MOST_HEADS;
    let biased = seed as usize / 8 % (count + 1);
    let starts: Vec<usize> = (0..=count).map(|i| i * width / count).collect();
    let head = |i: usize| Head {
        width: (starts[i + 1] - starts[i]) as u32,
        bias: i < biased,
        activation: ACTIVATIONS[(seed as usize / 64 + i) % 5],
    };
    (0..count).map(head).collect()
}

fn run_all(gpu: &mut Gpu, launches: &[Launch]) {
    launches.iter().for_each(|launch| gpu.launch(launch));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn forward_is_that_of_the_cpu(layers in Layers::any()) {
        let mut gpu = layers.device();
        let (x, weight) = (layers.samples(layers.inputs, layers.operand()), layers.weight());
        let y = layers.samples(layers.outputs, layers.element);
        let heads = if layers.groups == 1 {
            heads(layers.outputs, layers.seed)
        } else {
            let activation = ACTIVATIONS[layers.seed as usize % 5];
            vec![Head { width: layers.outputs as u32, bias: layers.accumulate, activation }]
        };
        let biased: usize = heads.iter().filter(|head| head.bias).map(|head| head.width as usize).sum();
        let bias = values(layers.seed ^ 9, layers.groups * biased, 1.0);
        let (all_x, live_x) = layers.values(x, 1);
        let (all_weight, live_weight) = layers.values(weight, 2);
        let expected = Expected::new(|most| if most {
            let bias: Vec<f32> = bias.iter().map(|v| v.abs()).collect();
            let heads: Vec<_> = heads.iter().map(|&h| Head { activation: Activation::Identity, ..h }).collect();
            linear(&layers, &live_x.absolute(), &live_weight.absolute(), &bias, &heads)
        } else {
            linear(&layers, &live_x, &live_weight, &bias, &heads)
        });

        let before = y.values(layers.seed ^ 3, 1.0);
        let (x, weight) = (x.upload(&mut gpu, &all_x), weight.upload(&mut gpu, &all_weight));
        let to = y.upload(&mut gpu, &before);
        let bias = if bias.is_empty() { 0 } else { gpu.upload(&bias) };
        let launch = if layers.groups == 1 {
            cuda::linear(layers.precision, x, weight, &Heads::new(bias, &heads), to)
        } else {
            cuda::grouped_linear(layers.precision, layers.groups as u32, x, weight, bias, heads[0].activation, to)
        };
        gpu.launch(&layers.wanted(launch, [x, weight]));
        prop_assert_eq!(expected.wrong(y, &before, &y.download(&mut gpu, to)), None, "{:?}", heads);
    }

    #[test]
    fn gradients_of_inputs_are_those_of_the_cpu(layers in Layers::any(), act in 0usize..6) {
        let mut gpu = layers.device();
        let (dy, weight) = (layers.samples(layers.outputs, layers.operand()), layers.weight());
        let dx = layers.samples(layers.inputs, layers.element);
        let masked = Window { before: dx.behind, behind: dx.before, ..dx };
        let (all_dy, live_dy) = layers.values(dy, 1);
        let (all_weight, live_weight) = layers.values(weight, 2);
        let (all_masked, before) = (masked.values(layers.seed ^ 3, 0.99), dx.values(layers.seed ^ 4, 1.0));
        let live_masked = Matrix { rows: dx.live, cols: dx.cols, data: masked.live_values(&all_masked) };
        let mask = ACTIVATIONS.get(act).map(|&act| (act, &live_masked));
        let start = match layers.accumulate {
            true => Matrix { data: dx.live_values(&before), ..live_masked },
            false => Matrix::filled(dx.live, dx.cols, 0.0),
        };
        let expected = Expected::new(|most| if most {
            linear_dx(&layers, &live_dy.absolute(), &live_weight.absolute(), None, start.absolute())
        } else {
            linear_dx(&layers, &live_dy, &live_weight, mask, start.clone())
        });

        let (dy, weight) = (dy.upload(&mut gpu, &all_dy), weight.upload(&mut gpu, &all_weight));
        let (masked, to) = (masked.upload(&mut gpu, &all_masked), dx.upload(&mut gpu, &before));
        let mask = mask.map(|(act, _)| (act, masked));
        let groups = layers.groups as u32;
        let launch = cuda::grouped_linear_dx(layers.precision, groups, dy, weight, layers.accumulate, mask, to);
        gpu.launch(&layers.wanted(launch, [dy, weight]));
        prop_assert_eq!(expected.wrong(dx, &before, &dx.download(&mut gpu, to)), None);
    }

    #[test]
    fn gradients_of_weights_are_those_of_the_cpu(layers in Layers::any(), many_rows: bool, bias: Option<bool>) {
        // Enough rows for several chunks, where the tile is not too large for it.
        let many = if many_rows && layers.inputs * layers.outputs < 2000 { 600 } else { 0 };
        let layers = Layers { rows: layers.rows + many, live: layers.live + many, ..layers };
        let mut gpu = layers.device();
        let operand = layers.operand();
        let (dy, x) = (layers.samples(layers.outputs, operand), layers.samples(layers.inputs, operand));
        let dw = Window { element: Element::F32, ..layers.weight() };
        let (all_dy, live_dy) = layers.values(dy, 1);
        let (all_x, live_x) = layers.values(x, 2);
        let before = dw.values(layers.seed ^ 3, 1.0);
        let start = match layers.accumulate {
            true => Matrix { rows: dw.rows, cols: dw.cols, data: dw.live_values(&before) },
            false => Matrix::filled(dw.rows, dw.cols, 0.0),
        };
        let expected = Expected::new(|most| if most {
            linear_dw(&layers, &live_dy.absolute(), &live_x.absolute(), start.absolute())
        } else {
            linear_dw(&layers, &live_dy, &live_x, start.clone())
        });

        // What is summed up is not rounded.
        let summed = Matrix { data: dy.live_values(&all_dy), ..live_dy };
        let (dy, x) = (dy.upload(&mut gpu, &all_dy), x.upload(&mut gpu, &all_x));
        let to = dw.upload(&mut gpu, &before);
        let (rows, groups) = (layers.rows as u32, layers.groups as u32);
        let scratch = cuda::linear_dw_scratch(rows, layers.inputs as u32, layers.outputs as u32, groups);
        let scratch = gpu.allocate::<f32>(scratch);
        let biased = dy.cols - dy.cols.min(3);
        let db_before = values(layers.seed ^ 4, biased as usize, 1.0);
        let db = gpu.upload(&db_before);
        let beside = bias.map(|accumulate| cuda::BiasGradient { dy: dy.columns(0, biased), accumulate, to: db });
        let (precision, add) = (layers.precision, layers.accumulate);
        let launches = cuda::grouped_linear_dw(precision, groups, dy, x, add, to, beside, scratch);
        launches.into_iter().for_each(|launch| gpu.launch(&layers.wanted(launch, [dy, x])));
        prop_assert_eq!(expected.wrong(dw, &before, &dw.download(&mut gpu, to)), None);
        let found = gpu.download(db, biased as usize);
        let Some(accumulate) = bias else { return Ok(()) };
        let expected = Expected::new(|most| {
            let start = if accumulate { db_before.clone() } else { vec![0.0; biased as usize] };
            let mut db = if most { start.iter().map(|v| v.abs()).collect() } else { start };
            let dy = if most { summed.absolute() } else { summed.clone() };
            gemm::column_sums(Isa::best(), dy.view().columns(0, biased as usize), true, &mut db);
            Matrix { rows: 1, cols: biased as usize, data: db }
        });
        let db = Window::whole(1, biased as usize);
        prop_assert_eq!(expected.wrong(db, &db_before, &found), None, "bias");
    }

    #[test]
    fn sums_of_columns_are_those_of_the_cpu(
        rows in prop_oneof![0usize..20, 60usize..400], missing in 0usize..100, cols in 0usize..300,
        around in (0usize..5, 0usize..5), is_bf16: bool, accumulate: bool, seed: u64,
    ) {
        let element = if is_bf16 { Element::Bf16 } else { Element::F32 };
        let live = rows.saturating_sub(missing.saturating_sub(30));
        let dy = Window { rows, live, cols, before: around.0, behind: around.1, element };
        let all = dy.values(seed, 1.0);
        let live = Matrix { rows: live, cols, data: dy.live_values(&all) };
        let db = Window::whole(1, cols);
        let before = values(seed ^ 1, cols, 1.0);
        let expected = Expected::new(|most| {
            let (dy, mut db) = if most { (live.absolute(), vec![1.0; cols]) } else { (live.clone(), before.clone()) };
            gemm::column_sums(Isa::best(), dy.view(), accumulate, &mut db);
            Matrix { rows: 1, cols, data: db }
        });

        let mut gpu = Gpu::with_order(seed);
        let (dy, to) = (dy.upload(&mut gpu, &all), gpu.upload(&before));
        let scratch = gpu.allocate::<f32>(cuda::column_sums_scratch(rows as u32, cols as u32));
        run_all(&mut gpu, &cuda::column_sums(dy, accumulate, to, scratch));
        prop_assert_eq!(expected.wrong(db, &before, &gpu.download(to, cols)), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn casts_take_the_nearest(
        shapes in prop::collection::vec((0usize..6, 0usize..900, 0usize..9, 0usize..9), 0..5), seed: u64,
    ) {
        let mut gpu = Gpu::with_order(seed);
        let windows = shapes.into_iter().map(|(rows, cols, behind, behind_cast)| {
            let from = Window { behind, ..Window::whole(rows, cols) };
            (from, Window { behind: behind_cast, element: Element::Bf16, ..from })
        });
        let windows: Vec<_> = windows.collect();
        let values: Vec<_> = windows.iter().map(|w| (w.0.values(seed, 9.0), w.1.values(seed ^ 1, 9.0))).collect();
        let mats = windows.iter().zip(&values);
        let mats: Vec<_> = mats.map(|(w, v)| (w.0.upload(&mut gpu, &v.0), w.1.upload(&mut gpu, &v.1))).collect();
        let casts = Casts::new(&mats);
        let table = gpu.upload(casts.bytes());
        gpu.launch(&cuda::to_bf16(&casts, table));
        for (((from, to), (values, before)), mats) in windows.iter().zip(&values).zip(&mats) {
            let expected = to.replaced(before, &from.live_values(values));
            prop_assert_eq!(first_difference(&to.download(&mut gpu, mats.1), &expected), None);
        }
    }
}

/// Bits that a gradient of a weight that takes several chunks has, with warps in the order `seed`.
fn dw_bits(precision: Precision, seed: u64) -> Vec<u32> {
    let mut gpu = Gpu::with_order(seed);
    let element = if precision == Precision::Bf16 { Element::Bf16 } else { Element::F32 };
    let (dy, x) =
        (Window { element, ..Window::whole(600, 20) }, Window { element, ..Window::whole(600, 30) });
    let (dy, x) = (dy.upload(&mut gpu, &dy.values(1, 1.0)), x.upload(&mut gpu, &x.values(2, 1.0)));
    let to = gpu.allocate::<f32>(600);
    let scratch = cuda::linear_dw_scratch(600, 30, 20, 1);
    assert!(scratch > 0, "one chunk");
    let scratch = gpu.allocate::<f32>(scratch);
    run_all(&mut gpu, &cuda::linear_dw(precision, dy, x, false, DeviceMat::new(to, 20, 30), None, scratch));
    gpu.download(to, 600)
}

#[test]
fn the_order_of_warps_changes_no_bits() {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let bits = dw_bits(precision, 0);
        for seed in 1..4 {
            assert_eq!(dw_bits(precision, seed), bits, "{precision:?}, seed {seed}");
        }
    }
}

/// The family that a forward pass in bf16 is of on Hopper.
fn family_on_hopper(rows: u32, inputs: u32, outputs: u32) -> &'static str {
    let (element, stride) = (Element::Bf16, 4096);
    let mat = |rows, cols| DeviceMat { element, stride, ..DeviceMat::new(1 << 20, rows, cols) };
    let (x, weight, y) = (mat(rows, inputs), mat(outputs, inputs), mat(rows, outputs));
    let launch = cuda::linear(Precision::Bf16, x, weight, &Heads::one(outputs, 0, Activation::Relu), y);
    launch.on_hopper.expect("a product").family.name
}

#[test]
fn large_products_have_wide_tiles() {
    assert_eq!(family_on_hopper(65536, 512, 2072), "gemm_hopper_wide");
    assert_eq!(family_on_hopper(33792, 256, 1), "gemm_hopper_wide");
    // Too short an inner index, and too few tiles.
    assert_eq!(family_on_hopper(65536, 255, 2072), "gemm_hopper");
    assert_eq!(family_on_hopper(33791, 256, 128), "gemm_hopper");
}

#[test]
#[should_panic(expected = "what Bf16 multiplies")]
fn operands_of_another_element_are_refused() {
    let x = DeviceMat::new(64, 2, 3);
    cuda::linear(Precision::Bf16, x, x, &Heads::one(2, 0, Activation::Identity), DeviceMat::new(64, 2, 2));
}
