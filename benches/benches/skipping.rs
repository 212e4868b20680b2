//! A layer over few rows behind pruned units: time falls with the share of units that are pruned, arithmetic and bytes
//! of weights alike. The first case of each shape is the product that skips nothing.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::activation::Activation;
use manygate_kernels::gemm::{self, Packed};
use manygate_kernels::{Isa, Mat, MatMut};

/// Inputs and outputs: out of the second-level cache, and larger than it.
const SHAPES: [(usize, usize); 2] = [(512, 256), (2048, 1024)];

const ROWS: [usize; 4] = [1, 2, 4, 8];

const PRUNED: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 0.9];

/// A row of which a share of units is 0, the same in all rows, as a pruner that knows the scenario alone has it.
fn pruned(rows: usize, inputs: usize, share: f64) -> Aligned {
    let mut x = values(rows * inputs);
    for (i, x) in x.as_mut().iter_mut().enumerate() {
        // A low-discrepancy sequence: pruned units lie evenly among the others.
        if (i % inputs) as f64 * 0.618_033_988_75 % 1.0 < share {
            *x = 0.0;
        }
    }
    x
}

fn layers(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("skipping {isa}"));
    for (inputs, outputs) in SHAPES {
        let (weight, bias) = (values(inputs * outputs), values(outputs));
        let mut packed = Aligned::zeros(gemm::packed_len(inputs, outputs));
        gemm::pack_transposed(isa, Mat::new(weight.as_ref(), outputs, inputs), packed.as_mut());
        let packed = Packed::new(packed.as_ref(), inputs, outputs);
        for rows in ROWS {
            let mut y = Aligned::zeros(rows * outputs);
            let shape = format!("{inputs} -> {outputs}, {rows} rows");
            let work = |left: f64| Work {
                flops: 2.0 * left * (rows * inputs * outputs) as f64,
                bytes: left * (size_of::<f32>() * inputs * outputs) as f64,
            };
            let mut run = |name: &str, share: f64, skips: bool| {
                let x = pruned(rows, inputs, share);
                case(&mut group, machine, &format!("{shape}, {name}"), work(1.0 - share), || {
                    let (x, y) = (Mat::new(x.as_ref(), rows, inputs), MatMut::new(y.as_mut(), rows, outputs));
                    let kernel = if skips { gemm::linear_skipping } else { gemm::linear };
                    kernel(isa, x, packed, bias.as_ref(), Activation::Relu, y);
                });
            };
            run("all", 0.0, false);
            PRUNED.iter().for_each(|&share| run(&format!("{share} pruned"), share, true));
        }
    }
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    layers(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
