//! Units times amplitudes on one tile of rows, whose operands stay in the second-level cache as in training.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::amplitude::{Amplitude, Arguments, Pruning, Target, amplify, amplify_backward};
use manygate_kernels::{Isa, Mat, MatMut};

const ROWS: usize = 128;
const WIDTH: usize = 256;

fn amplitudes(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("amplitude {isa}"));
    let pruning = Pruning { scale: 2.0, steepness: 1.0, threshold: 0.25 };
    let [x, r, dy] = [0; 3].map(|_| values(ROWS * WIDTH));
    let [mut y, mut dx, mut dr] = [0; 3].map(|_| Aligned::zeros(ROWS * WIDTH));
    let work = |passes: usize| Work { flops: 0.0, bytes: (passes * ROWS * WIDTH * size_of::<f32>()) as f64 };
    let (parts, fields) = ([16; WIDTH / 16], values(ROWS * WIDTH / 16));
    for (name, amplitude, parts) in [
        ("sigmoid", Amplitude::Sigmoid(2.0), &[][..]),
        ("exp", Amplitude::Exp, &[]),
        ("pruned", Amplitude::Pruned(pruning), &[]),
        ("sigmoid, parts of 16", Amplitude::Sigmoid(2.0), &parts),
    ] {
        let mat = |data| Mat::new(data, ROWS, WIDTH);
        let (values, n) = match parts {
            [] => (r.as_ref(), WIDTH),
            parts => (fields.as_ref(), parts.len()),
        };
        let arguments = Arguments { values: Mat::new(values, ROWS, n), rows: None, parts };
        case(&mut group, machine, &format!("forward, {name}"), work(3), || {
            amplify(isa, amplitude, mat(x.as_ref()), arguments, MatMut::new(y.as_mut(), ROWS, WIDTH));
        });
        case(&mut group, machine, &format!("backward, {name}"), work(5), || {
            let dx = Target { to: MatMut::new(dx.as_mut(), ROWS, WIDTH), accumulate: false };
            let dr = Target { to: MatMut::new(&mut dr.as_mut()[..ROWS * n], ROWS, n), accumulate: false };
            let (x, dy) = (mat(x.as_ref()), mat(dy.as_ref()));
            amplify_backward(isa, amplitude, x, arguments, dy, Some(dx), None, Some(dr));
        });
    }
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    amplitudes(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
