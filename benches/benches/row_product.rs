//! Products with matrices of samples, on one tile of rows: each matrix is read, or its gradient written, once.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::row_product::{Start, Vectors, row_outer, row_product};
use manygate_kernels::{Isa, Mat, MatMut};

const SAMPLES: usize = 64;

/// Ids of a sample where it has a list.
const LENGTH: usize = 20;

/// Name, groups, inputs, outputs, and whether there is a list: an adapter's core, a meta unit, its scores, a low-rank
/// transfer, and heads of attention over a list.
const SHAPES: [(&str, usize, usize, usize, bool); 5] = [
    ("core", 1, 35, 35, false),
    ("unit", 1, 64, 64, false),
    ("scores", 8, 64, 1, false),
    ("units", 4, 32, 32, false),
    ("list", 4, 16, 16, true),
];

fn products(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("row_product {isa}"));
    for (name, groups, inner, out, list) in SHAPES {
        let length = if list { LENGTH } else { 1 };
        let rows = SAMPLES * length;
        let offsets: Vec<u32> = (0..=SAMPLES).map(|sample| (sample * length) as u32).collect();
        let of = Vectors { groups, offsets: list.then_some(&offsets[..]) };
        let (x, dy) = (values(rows * groups * inner), values(rows * groups * out));
        let weight = values(SAMPLES * inner * out);
        let [x, dy] = [(&x, inner), (&dy, out)].map(|(v, n)| Mat::new(v.as_ref(), rows, groups * n));
        let weight = Mat::new(weight.as_ref(), SAMPLES, inner * out);
        let (mut y, mut dw) = (Aligned::zeros(rows * groups * out), Aligned::zeros(SAMPLES * inner * out));
        let work = Work {
            flops: 2.0 * (rows * groups * inner * out) as f64,
            bytes: (size_of::<f32>() * (SAMPLES * inner * out + rows * groups * (inner + out))) as f64,
        };
        for (way, transposed) in [("rows", false), ("columns", true)] {
            case(&mut group, machine, &format!("{name}, by {way}"), work, || {
                let y = MatMut::new(y.as_mut(), rows, groups * out);
                row_product(isa, x, weight, of, transposed, Start::Zero, y);
            });
        }
        case(&mut group, machine, &format!("{name}, gradient"), work, || {
            row_outer(isa, dy, x, of, false, MatMut::new(dw.as_mut(), SAMPLES, inner * out));
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
