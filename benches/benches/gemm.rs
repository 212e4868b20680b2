//! The products of a recommendation network, on tiles of rows: a wide bank of experts over 429 inputs, its gates, the
//! experts' second layer, and towers; forward, gradient of the input, gradient of the weight.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::activation::Activation;
use manygate_kernels::gemm::{self, GroupedPacked};
use manygate_kernels::{Isa, Mat, MatMut};

/// Groups side by side, inputs and outputs of each.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 429, 4096), (1, 429, 24), (8, 512, 256), (3, 256, 128), (3, 128, 64), (3, 64, 1)];

const TILES: [usize; 2] = [128, 256];

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
        let mut packed = Aligned::zeros(gemm::grouped_packed_len(layer.groups, layer.inputs, layer.outputs));
        gemm::grouped_pack_transposed(isa, layer.groups, layer.weight(), packed.as_mut());
        let packed = GroupedPacked::new(packed.as_ref(), layer.groups, layer.inputs, layer.outputs);
        let mut y = Aligned::zeros(layer.dy.as_ref().len());
        case(&mut group, machine, &layer.name(), layer.work(), || {
            let y = MatMut::new(y.as_mut(), layer.rows, layer.groups * layer.outputs);
            gemm::grouped_linear(isa, layer.x(), packed, layer.bias.as_ref(), Activation::Relu, y);
        });
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

/// The forward products by another library: no bias, no activation, weights not packed beforehand.
fn matrixmultiply(criterion: &mut Criterion, machine: &Machine) {
    let mut group = criterion.benchmark_group("matrixmultiply");
    for layer in layers() {
        let (inputs, outputs, rows) = (layer.inputs, layer.outputs, layer.rows);
        let (wide_in, wide_out) = (layer.groups * inputs, layer.groups * outputs);
        let mut y = Aligned::zeros(layer.dy.as_ref().len());
        case(&mut group, machine, &layer.name(), layer.work(), || {
            for g in 0..layer.groups {
                let (x, w) =
                    (&layer.x.as_ref()[g * inputs..], &layer.weight.as_ref()[g * outputs * inputs..]);
                let y = &mut y.as_mut()[g * outputs..];
                let (rsx, rsw, rsy) = (wide_in as isize, inputs as isize, wide_out as isize);
                // SAFETY: the pointers and strides address group `g` inside the three buffers.
                unsafe {
                    let (x, w, y) = (x.as_ptr(), w.as_ptr(), y.as_mut_ptr());
                    matrixmultiply::sgemm(rows, inputs, outputs, 1.0, x, rsx, 1, w, 1, rsw, 0.0, y, rsy, 1);
                }
            }
        });
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
    matrixmultiply(&mut criterion, &machine);
    criterion.final_summary();
}

criterion_main!(benches);
