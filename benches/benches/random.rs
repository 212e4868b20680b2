//! Dropout of one tile of activations, in the caches as in training.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::random::{Dropping, dropout};
use manygate_kernels::{Isa, Mat, MatMut};

const ROWS: usize = 128;

fn dropouts(criterion: &mut Criterion, isa: Isa, cols: usize, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("dropout {isa}, {ROWS} x {cols}"));
    let x = values(ROWS * cols);
    let x = Mat::new(x.as_ref(), ROWS, cols);
    let mut out = Aligned::zeros(ROWS * cols);
    let rows: Vec<u32> = (0..ROWS as u32).rev().collect();
    let passes = |passes: usize| Work { flops: 0.0, bytes: (passes * ROWS * cols * size_of::<f32>()) as f64 };
    let named: [(&str, &[u32]); 2] = [("forward", &[]), ("forward, rows named", &rows)];
    for (name, rows) in named {
        case(&mut group, machine, name, passes(2), || {
            let out = MatMut::new(out.as_mut(), ROWS, cols);
            dropout(isa, [1, 2], 0, rows, Dropping::new(0.2), false, x, out);
        });
    }
    case(&mut group, machine, "backward, added", passes(3), || {
        let out = MatMut::new(out.as_mut(), ROWS, cols);
        dropout(isa, [1, 2], 0, &[], Dropping::new(0.2), true, x, out);
    });
}

fn benches() {
    let mut criterion = quick();
    let machine = Machine::measure(Isa::best());
    for isa in Isa::available() {
        for cols in [512, 64] {
            dropouts(&mut criterion, isa, cols, &machine);
        }
    }
    criterion.final_summary();
}

criterion_main!(benches);
