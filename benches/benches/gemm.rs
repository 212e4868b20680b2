//! The products of a recommendation network, on tiles of rows: a wide bank of experts over 429 inputs, its gates, the
//! experts' second layer, and towers; forward, gradient of the input, gradient of the weight; forward of a few rows too.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, best_run, case, quick, values};
use manygate_kernels::activation::Activation;
use manygate_kernels::gemm::{self, GroupedPacked};
use manygate_kernels::{Isa, Mat, MatMut, peak};
use std::time::Duration;

/// Groups side by side, inputs and outputs of each.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 429, 4096), (1, 429, 24), (8, 512, 256), (3, 256, 128), (3, 128, 64), (3, 64, 1)];

const TILES: [usize; 2] = [128, 256];

const FEW_ROWS: [usize; 4] = [1, 2, 4, 8];

struct Layer {
    groups: usize,
    inputs: usize,
    outputs: usize,
    rows: usize,
    x: Aligned,
    dy: Aligned,
    weight: Aligned,
    bias: Aligned,
}

impl Layer {
    fn new(rows: usize, (groups, inputs, outputs): (usize, usize, usize)) -> Self {
        let (wide_in, wide_out) = (groups * inputs, groups * outputs);
        Self {
            groups,
            inputs,
            outputs,
            rows,
            x: values(rows * wide_in),
            dy: values(rows * wide_out),
            weight: values(wide_out * inputs),
            bias: values(wide_out),
        }
    }

    fn x(&self) -> Mat<'_> {
        Mat::new(self.x.as_ref(), self.rows, self.groups * self.inputs)
    }

    fn dy(&self) -> Mat<'_> {
        Mat::new(self.dy.as_ref(), self.rows, self.groups * self.outputs)
    }

    fn weight(&self) -> Mat<'_> {
        Mat::new(self.weight.as_ref(), self.groups * self.outputs, self.inputs)
    }

    fn work(&self) -> Work {
        Work { flops: (2 * self.rows * self.groups * self.inputs * self.outputs) as f64, bytes: 0.0 }
    }

    /// The weights, packed for the forward product.
    fn packed(&self, isa: Isa) -> Aligned {
        let mut packed = Aligned::zeros(gemm::grouped_packed_len(self.groups, self.inputs, self.outputs));
        gemm::grouped_pack_transposed(isa, self.groups, self.weight(), packed.as_mut());
        packed
    }

    fn forward(&self, isa: Isa, packed: &Aligned, y: &mut [f32]) {
        let packed = GroupedPacked::new(packed.as_ref(), self.groups, self.inputs, self.outputs);
        let y = MatMut::new(y, self.rows, self.groups * self.outputs);
        gemm::grouped_linear(isa, self.x(), packed, self.bias.as_ref(), Activation::Relu, y);
    }

    fn name(&self) -> String {
        format!("{} rows, {} x ({} -> {})", self.rows, self.groups, self.inputs, self.outputs)
    }
}

fn layers() -> impl Iterator<Item = Layer> {
    TILES.into_iter().flat_map(|rows| SHAPES.into_iter().map(move |shape| Layer::new(rows, shape)))
}

fn linear(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("linear {isa}"));
    for layer in layers() {
        let packed = layer.packed(isa);
        let mut y = Aligned::zeros(layer.dy.as_ref().len());
        case(&mut group, machine, &layer.name(), layer.work(), || layer.forward(isa, &packed, y.as_mut()));
        let other = format!("{}, matrixmultiply", layer.name());
        case(&mut group, machine, &other, layer.work(), || matrixmultiply(&layer, y.as_mut()));
    }
}

fn linear_dx(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("linear_dx {isa}"));
    for layer in layers() {
        let mut packed = Aligned::zeros(gemm::grouped_packed_len(layer.groups, layer.outputs, layer.inputs));
        gemm::grouped_pack(isa, layer.groups, layer.weight(), packed.as_mut());
        let packed = GroupedPacked::new(packed.as_ref(), layer.groups, layer.outputs, layer.inputs);
        let mut dx = Aligned::zeros(layer.x.as_ref().len());
        case(&mut group, machine, &layer.name(), layer.work(), || {
            let dx = MatMut::new(dx.as_mut(), layer.rows, layer.groups * layer.inputs);
            let mask = Some((Activation::Relu, layer.x()));
            gemm::grouped_linear_dx(isa, layer.dy(), packed, false, mask, dx);
        });
    }
}

fn linear_dw(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("linear_dw {isa}"));
    for layer in layers() {
        let mut scratch = Aligned::zeros(gemm::linear_dw_scratch(layer.rows, layer.inputs));
        let mut dw = Aligned::zeros(layer.weight.as_ref().len());
        case(&mut group, machine, &layer.name(), layer.work(), || {
            let dw = MatMut::new(dw.as_mut(), layer.groups * layer.outputs, layer.inputs);
            gemm::grouped_linear_dw(isa, layer.groups, layer.dy(), layer.x(), true, dw, scratch.as_mut());
        });
    }
}

/// Packing happens once a step, after the optimiser: bytes read and written.
fn packing(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("pack {isa}"));
    let layer = Layer::new(1, SHAPES[0]);
    let bytes = 2.0 * size_of_val(layer.weight.as_ref()) as f64;
    let work = Work { flops: 0.0, bytes };
    let mut packed = Aligned::zeros(gemm::packed_len(layer.inputs, layer.outputs));
    case(&mut group, machine, "transposed [4096, 429]", work, || {
        gemm::pack_transposed(isa, layer.weight(), packed.as_mut());
    });
    let mut packed = Aligned::zeros(gemm::packed_len(layer.outputs, layer.inputs));
    case(&mut group, machine, "as it stands [4096, 429]", work, || {
        gemm::pack(isa, layer.weight(), packed.as_mut());
    });
}

/// The forward product by another library: no bias, no activation, weights not packed beforehand.
fn matrixmultiply(layer: &Layer, y: &mut [f32]) {
    let (inputs, outputs, rows) = (layer.inputs, layer.outputs, layer.rows);
    let (wide_in, wide_out) = (layer.groups * inputs, layer.groups * outputs);
    for g in 0..layer.groups {
        let (x, w) = (&layer.x.as_ref()[g * inputs..], &layer.weight.as_ref()[g * outputs * inputs..]);
        let y = &mut y[g * outputs..];
        let (rsx, rsw, rsy) = (wide_in as isize, inputs as isize, wide_out as isize);
        // SAFETY: the pointers and strides address group `g` inside the three buffers.
        unsafe {
            let (x, w, y) = (x.as_ptr(), w.as_ptr(), y.as_mut_ptr());
            matrixmultiply::sgemm(rows, inputs, outputs, 1.0, x, rsx, 1, w, 1, rsw, 0.0, y, rsy, 1);
        }
    }
}

/// A few rows, as in serving: bytes of weights a second, beside those that a plain sum over the same weights reads, and
/// operations, of which there may be too many for that rate.
fn few_rows(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("few rows {isa}"));
    for layer in SHAPES.into_iter().flat_map(|shape| FEW_ROWS.map(|rows| Layer::new(rows, shape))) {
        let packed = layer.packed(isa);
        let read = peak::read_gbs(isa, packed.as_ref(), Duration::from_millis(50));
        let mut y = Aligned::zeros(layer.dy.as_ref().len());
        let bytes = size_of_val(layer.weight.as_ref()) as f64;
        let mut line = |name: &str, kernel: &mut dyn FnMut()| {
            let Some(best) = best_run(&mut group, name, layer.work(), kernel) else { return };
            let (gbs, gflops) = (bytes / best * 1e-9, layer.work().flops / best * 1e-9);
            println!(
                "    {name}: best {:.2} us, {gbs:.1} GB/s of weights, {:.0} % of the read rate {read:.1}; {gflops:.1} GFLOP/s, \
                 {:.0} % of the multiply-add peak",
                best * 1e6,
                100.0 * gbs / read,
                100.0 * gflops / machine.fma_gflops
            );
        };
        line(&layer.name(), &mut || layer.forward(isa, &packed, y.as_mut()));
        line(&format!("{}, matrixmultiply", layer.name()), &mut || matrixmultiply(&layer, y.as_mut()));
    }
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    let machine = Machine::measure(isa);
    linear(&mut criterion, isa, &machine);
    linear_dx(&mut criterion, isa, &machine);
    linear_dw(&mut criterion, isa, &machine);
    packing(&mut criterion, isa, &machine);
    few_rows(&mut criterion, isa, &machine);
    criterion.final_summary();
}

criterion_main!(benches);
