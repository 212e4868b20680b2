//! Pieces of attention over the behaviours of one tile of samples, in the caches as in training.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::sequence::{
    Attended, Sink, attend, attend_backward, compare, compare_dk, dots, weighted_sum,
};
use manygate_kernels::{Isa, Mat, MatMut};

const SAMPLES: usize = 32;
const LENGTH: usize = 50;
const DIM: usize = 16;

/// Work over values of the given number of rows, one an id.
fn rows(count: usize) -> Work {
    Work { flops: 0.0, bytes: (count * SAMPLES * LENGTH * DIM * size_of::<f32>()) as f64 }
}

fn sequences(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let name = format!("sequence {isa}, {SAMPLES} lists of {LENGTH} x {DIM}");
    let mut group = criterion.benchmark_group(name);
    let ids = SAMPLES * LENGTH;
    let [k, v, z] = [1, 1, 4].map(|parts| values(parts * ids * DIM));
    let (k, v) = (Mat::new(k.as_ref(), ids, DIM), Mat::new(v.as_ref(), ids, DIM));
    let (q, weights) = (values(DIM), values(LENGTH));
    let (q, weights) = (q.as_ref(), weights.as_ref());
    let (mut pairs, mut dk, mut dv) =
        (Aligned::zeros(4 * ids * DIM), Aligned::zeros(ids * DIM), Aligned::zeros(ids * DIM));
    let mut out = Aligned::zeros(DIM.max(LENGTH));
    let lists = || (0..SAMPLES).map(|sample| sample * LENGTH);
    case(&mut group, machine, "compare", rows(5), || {
        let mut pairs = MatMut::new(pairs.as_mut(), ids, 4 * DIM);
        lists().for_each(|at| compare(isa, q, k.row_range(at, LENGTH), pairs.row_range(at, LENGTH)));
    });
    case(&mut group, machine, "compare, gradient", rows(5), || {
        let (dz, mut dk) = (Mat::new(z.as_ref(), ids, 4 * DIM), MatMut::new(dk.as_mut(), ids, DIM));
        lists().for_each(|at| {
            compare_dk(isa, q, dz.row_range(at, LENGTH), false, dk.row_range(at, LENGTH));
        });
    });
    case(&mut group, machine, "weighted sum", rows(1), || {
        lists().for_each(|at| weighted_sum(isa, weights, k.row_range(at, LENGTH), &mut out.as_mut()[..DIM]));
    });
    case(&mut group, machine, "dots", rows(1), || {
        lists().for_each(|at| dots(isa, k.row_range(at, LENGTH), q, &mut out.as_mut()[..LENGTH]));
    });
    let mut log_sum = 0.0;
    case(&mut group, machine, "attend", rows(2), || {
        lists().for_each(|at| {
            let (k, v) = (k.row_range(at, LENGTH), v.row_range(at, LENGTH));
            attend(isa, 0.25, q, k, v, &mut out.as_mut()[..DIM], &mut log_sum);
        });
    });
    case(&mut group, machine, "attend, gradients", rows(4), || {
        let (mut dk, mut dv) = (MatMut::new(dk.as_mut(), ids, DIM), MatMut::new(dv.as_mut(), ids, DIM));
        lists().for_each(|at| {
            let (k, v) = (k.row_range(at, LENGTH), v.row_range(at, LENGTH));
            let at_list = Attended { scale: 0.25, q, k, v, out: q, log_sum, dout: q };
            let to_k = Sink { to: dk.row_range(at, LENGTH), accumulate: false };
            let to_v = Sink { to: dv.row_range(at, LENGTH), accumulate: false };
            attend_backward(
                isa,
                &at_list,
                Some(Sink { to: &mut out.as_mut()[..DIM], accumulate: true }),
                Some(to_k),
                Some(to_v),
            );
        });
    });
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    sequences(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
