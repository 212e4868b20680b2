//! The pieces of batch normalisation on one tile of rows, in the caches as in training.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::activation::{Activation, activate, activation_dx};
use manygate_kernels::norm::{column_moments, norm_dx, norm_gradient_sums, normalise};
use manygate_kernels::{Isa, Mat, MatMut};

const ROWS: usize = 128;
const COLS: usize = 256;

fn bytes(passes: usize) -> Work {
    Work { flops: 0.0, bytes: (passes * ROWS * COLS * size_of::<f32>()) as f64 }
}

fn norms(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("norm {isa}, {ROWS} x {COLS}"));
    let (x, dz, column) = (values(ROWS * COLS), values(ROWS * COLS), values(COLS));
    let (x, dz, column) =
        (Mat::new(x.as_ref(), ROWS, COLS), Mat::new(dz.as_ref(), ROWS, COLS), column.as_ref());
    let mut out = Aligned::zeros(ROWS * COLS);
    let (mut sums, mut products) = (vec![0.0; COLS], vec![0.0; COLS]);
    case(&mut group, machine, "moments", bytes(1), || column_moments(isa, x, &mut sums, &mut products));
    case(&mut group, machine, "normalise and relu", bytes(2), || {
        let out = MatMut::new(out.as_mut(), ROWS, COLS);
        normalise(isa, x, column, column, column, column, Activation::Relu, out);
    });
    case(&mut group, machine, "gradient sums", bytes(2), || {
        norm_gradient_sums(isa, dz, x, column, column, &mut sums, &mut products);
    });
    case(&mut group, machine, "dx", bytes(3), || {
        let out = MatMut::new(out.as_mut(), ROWS, COLS);
        norm_dx(isa, dz, x, column, column, column, column, column, false, out);
    });
    for act in [Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
        case(&mut group, machine, &format!("{act:?}"), bytes(2), || {
            activate(isa, act, MatMut::new(out.as_mut(), ROWS, COLS));
        });
    }
    case(&mut group, machine, "slope of relu", bytes(3), || {
        activation_dx(isa, Activation::Relu, x, MatMut::new(out.as_mut(), ROWS, COLS));
    });
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    norms(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
