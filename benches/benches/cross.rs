//! What cross layers do beside their products, on one tile of rows, in the caches as in training.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::cross::{
    Roles, Target, VectorGradients, cross, cross_dx, cross_vector, cross_vector_dx,
};
use manygate_kernels::{Isa, Mat, MatMut};

const ROWS: usize = 64;
/// 26 fields of 16 values and 13 numbers.
const COLS: usize = 429;

fn bytes(passes: usize) -> Work {
    Work { flops: 0.0, bytes: (passes * ROWS * COLS * size_of::<f32>()) as f64 }
}

fn crosses(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("cross {isa}, {ROWS} x {COLS}"));
    let [x0, x, map, dy] = [(); 4].map(|()| values(ROWS * COLS));
    let [x0, x, map, dy] = [&x0, &x, &map, &dy].map(|v| Mat::new(v.as_ref(), ROWS, COLS));
    let (w, b, mut dots) = (values(COLS), values(COLS), vec![0.0; ROWS]);
    let [mut y, mut dx0, mut dx, mut dmap] = [(); 4].map(|()| Aligned::zeros(ROWS * COLS));
    let (mut dw, mut db) = (vec![0.0; COLS], vec![0.0; COLS]);
    case(&mut group, machine, "matrix", bytes(4), || {
        cross(isa, x0, map, x, MatMut::new(y.as_mut(), ROWS, COLS));
    });
    case(&mut group, machine, "matrix, gradients", bytes(8), || {
        let target = |to, accumulate| Some(Target { to: MatMut::new(to, ROWS, COLS), accumulate });
        let (dx0, dmap, dx) =
            (target(dx0.as_mut(), true), target(dmap.as_mut(), false), target(dx.as_mut(), false));
        cross_dx(isa, x0, map, dy, false, dx0, dmap, dx);
    });
    case(&mut group, machine, "vector", bytes(3), || {
        let dots = MatMut::new(&mut dots, ROWS, 1);
        cross_vector(isa, x0, x, x, w.as_ref(), b.as_ref(), dots, MatMut::new(y.as_mut(), ROWS, COLS));
    });
    case(&mut group, machine, "vector, gradients", bytes(6), || {
        let target = |to, accumulate| Some(Target { to: MatMut::new(to, ROWS, COLS), accumulate });
        let of_x = Roles { inner: true, residual: true, ..Roles::default() };
        let mut gradients = [
            (Roles { factor: true, ..Roles::default() }, target(dx0.as_mut(), true)),
            (of_x, target(dx.as_mut(), false)),
        ];
        let sums = VectorGradients { weight: Some(&mut dw), bias: Some(&mut db) };
        cross_vector_dx(isa, x0, x, w.as_ref(), Mat::new(&dots, ROWS, 1), dy, sums, &mut gradients);
    });
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    crosses(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
