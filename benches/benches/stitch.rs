//! Mixing the activations of several networks on one tile, in the caches as in training.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::stitch::{stitch, stitch_dweights};
use manygate_kernels::{Isa, Mat, MatMut};

const ROWS: usize = 128;
const TASKS: usize = 4;
const UNITS: usize = 128;

fn stitches(criterion: &mut Criterion, isa: Isa, per_unit: bool, machine: &Machine) {
    let kind = if per_unit { "a weight a unit" } else { "a weight a pair" };
    let mut group = criterion.benchmark_group(format!("stitch {isa}, {kind}"));
    let cols = TASKS * UNITS;
    let (x, weights) = (values(ROWS * cols), values(TASKS * TASKS * if per_unit { UNITS } else { 1 }));
    let x = Mat::new(x.as_ref(), ROWS, cols);
    let (mut out, mut d_weights) = (Aligned::zeros(ROWS * cols), Aligned::zeros(weights.as_ref().len()));
    let work =
        Work { flops: (2 * ROWS * TASKS * cols) as f64, bytes: (2 * ROWS * cols * size_of::<f32>()) as f64 };
    let shape = format!("{ROWS} rows, T={TASKS}, u={UNITS}");
    case(&mut group, machine, &format!("forward, {shape}"), work, || {
        let out = MatMut::new(out.as_mut(), ROWS, cols);
        stitch(isa, TASKS, weights.as_ref(), false, x, false, out);
    });
    case(&mut group, machine, &format!("gradient of the weights, {shape}"), work, || {
        stitch_dweights(isa, TASKS, x, x, d_weights.as_mut());
    });
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    let machine = Machine::measure(isa);
    for per_unit in [false, true] {
        stitches(&mut criterion, isa, per_unit, &machine);
    }
    criterion.final_summary();
}

criterion_main!(benches);
