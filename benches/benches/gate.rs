//! Gates over a bank of experts on one tile of rows. The operands stay in the second-level cache, as they do in
//! training, so that shares of the copy bandwidth above 100 % are to be expected.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::gate::{gate_combine, gate_combine_dx, self_scored, self_scored_dx};
use manygate_kernels::{Isa, Mat, MatMut};

const ROWS: usize = 128;
const EXPERTS: usize = 8;
const WIDTH: usize = 256;

fn bytes(values: usize) -> Work {
    Work { flops: 0.0, bytes: (values * size_of::<f32>()) as f64 }
}

fn gates(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("gate {isa}"));
    let bank = values(ROWS * EXPERTS * WIDTH);
    let bank = Mat::new(bank.as_ref(), ROWS, EXPERTS * WIDTH);
    let mut d_bank = Aligned::zeros(ROWS * EXPERTS * WIDTH);
    for gates in [1, 3, 6] {
        let (logit_cols, mixed_cols) = (gates * EXPERTS, gates * WIDTH);
        let logits = values(ROWS * logit_cols);
        let d_mixed = values(ROWS * mixed_cols);
        let mut weights = Aligned::zeros(ROWS * logit_cols);
        let mut mixed = Aligned::zeros(ROWS * mixed_cols);
        let mut d_logits = Aligned::zeros(ROWS * logit_cols);
        let shape = format!("{ROWS} rows, T={gates}, E={EXPERTS}, d={WIDTH}");
        let small = 2 * logit_cols + mixed_cols;
        let work = bytes(ROWS * (EXPERTS * WIDTH + small));
        case(&mut group, machine, &format!("forward, {shape}"), work, || {
            let weights = MatMut::new(weights.as_mut(), ROWS, logit_cols);
            let mixed = MatMut::new(mixed.as_mut(), ROWS, mixed_cols);
            gate_combine(isa, gates, Mat::new(logits.as_ref(), ROWS, logit_cols), bank, weights, mixed);
        });
        let work = bytes(ROWS * (2 * EXPERTS * WIDTH + small));
        case(&mut group, machine, &format!("backward, {shape}"), work, || {
            let weights = Mat::new(weights.as_ref(), ROWS, logit_cols);
            let d_mixed = Mat::new(d_mixed.as_ref(), ROWS, mixed_cols);
            let d_logits = MatMut::new(d_logits.as_mut(), ROWS, logit_cols);
            let d_bank = MatMut::new(d_bank.as_mut(), ROWS, EXPERTS * WIDTH);
            gate_combine_dx(isa, gates, weights, bank, d_mixed, false, d_logits, false, d_bank);
        });
    }
}

/// Two vectors a row that score themselves.
fn self_scores(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    const SOURCES: usize = 2;
    let mut group = criterion.benchmark_group(format!("self_scored {isa}"));
    for width in [32, 256] {
        let cols = 3 * SOURCES * width;
        let (kqv, dy) = (values(ROWS * cols), values(ROWS * width));
        let kqv = Mat::new(kqv.as_ref(), ROWS, cols);
        let (mut weights, mut y) = (Aligned::zeros(ROWS * SOURCES), Aligned::zeros(ROWS * width));
        let mut d_kqv = Aligned::zeros(ROWS * cols);
        let shape = format!("{ROWS} rows, k={width}");
        case(&mut group, machine, &format!("forward, {shape}"), bytes(ROWS * (cols + width)), || {
            let weights = MatMut::new(weights.as_mut(), ROWS, SOURCES);
            self_scored(isa, SOURCES, 0.1, kqv, weights, MatMut::new(y.as_mut(), ROWS, width));
        });
        case(&mut group, machine, &format!("backward, {shape}"), bytes(ROWS * (2 * cols + width)), || {
            let weights = Mat::new(weights.as_ref(), ROWS, SOURCES);
            let d_kqv = MatMut::new(d_kqv.as_mut(), ROWS, cols);
            let dy = Mat::new(dy.as_ref(), ROWS, width);
            self_scored_dx(isa, SOURCES, 0.1, kqv, weights, dy, false, d_kqv);
        });
    }
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    let machine = Machine::measure(isa);
    gates(&mut criterion, isa, &machine);
    self_scores(&mut criterion, isa, &machine);
    criterion.final_summary();
}

criterion_main!(benches);
