//! Inner products of all pairs of fields, on one tile of rows.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::pair_products::{pair_products, pair_products_de};
use manygate_kernels::{Isa, Mat, MatMut};

const ROWS: usize = 64;

/// Fields and their widths.
const SHAPES: [(usize, usize); 3] = [(26, 16), (39, 10), (8, 64)];

fn products(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("pair_products {isa}"));
    for (fields, n) in SHAPES {
        let (cols, pairs) = (fields * n, fields * (fields - 1) / 2);
        let (e, dy) = (values(ROWS * cols), values(ROWS * pairs));
        let e = Mat::new(e.as_ref(), ROWS, cols);
        let (mut y, mut de) = (Aligned::zeros(ROWS * pairs), Aligned::zeros(ROWS * cols));
        let work = |ways: usize| Work {
            flops: (2 * ways * ROWS * pairs * n) as f64,
            bytes: (size_of::<f32>() * ROWS * (ways * cols + pairs)) as f64,
        };
        case(&mut group, machine, &format!("{fields} fields of {n}"), work(1), || {
            pair_products(isa, e, fields, MatMut::new(y.as_mut(), ROWS, pairs));
        });
        case(&mut group, machine, &format!("{fields} fields of {n}, gradient"), work(2), || {
            let dy = Mat::new(dy.as_ref(), ROWS, pairs);
            pair_products_de(isa, e, fields, dy, false, MatMut::new(de.as_mut(), ROWS, cols));
        });
    }
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    products(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
