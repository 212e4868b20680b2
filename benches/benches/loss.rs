//! Binary cross-entropy over one task's column of the logits, for a whole batch; and probabilities.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::loss::{bce_with_logits, sigmoid};
use manygate_kernels::{Isa, Mat, MatMut};
use std::hint::black_box;

const ROWS: usize = 4096;
const TASKS: usize = 3;

fn bytes(values: usize) -> Work {
    Work { flops: 0.0, bytes: (values * size_of::<f32>()) as f64 }
}

fn losses(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("loss {isa}"));
    let logits = values(ROWS * TASKS);
    let labels: Vec<f32> = (0..ROWS).map(|r| f32::from(r % 5 == 0)).collect();
    let counted = vec![1.0; ROWS];
    let mut out = Aligned::zeros(ROWS * TASKS);
    let column = Mat::new(logits.as_ref(), ROWS, TASKS).columns(1, 1);
    case(&mut group, machine, "bce and gradient, 4096 rows", bytes(ROWS * 4), || {
        let d = MatMut::strided(out.as_mut(), ROWS, 1, TASKS);
        black_box(bce_with_logits(isa, column, &labels, Some(&counted), 1.0 / ROWS as f32, Some(d)));
    });
    case(&mut group, machine, "sigmoid, 4096 x 3", bytes(ROWS * TASKS * 2), || {
        let out = MatMut::new(out.as_mut(), 1, ROWS * TASKS);
        sigmoid(isa, Mat::new(logits.as_ref(), 1, ROWS * TASKS), out);
    });
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    losses(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
