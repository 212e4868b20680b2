//! Attention among tokens, on one tile of samples: fields of a row, and ids of a list.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::attention::{Tokens, self_attention, self_attention_backward, self_attention_scratch};
use manygate_kernels::sequence::Sink;
use manygate_kernels::{Isa, Mat, MatMut};

const SAMPLES: usize = 16;

/// Tokens, heads and their width.
const SHAPES: [(usize, usize, usize); 3] = [(26, 2, 16), (50, 4, 16), (20, 2, 64)];

fn attentions(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("attention {isa}"));
    for (tokens, heads, width) in SHAPES {
        let (rows, cols) = (SAMPLES * tokens, heads * width);
        let inputs = [1, 2, 3, 4].map(|_| values(rows * cols));
        let [q, k, v, dout] = [0, 1, 2, 3].map(|i| Mat::new(inputs[i].as_ref(), rows, cols));
        let mut outputs = [(); 4].map(|()| Aligned::zeros(rows * cols));
        let mut scratch = Aligned::zeros(self_attention_scratch(tokens, width));
        let of = |sample: usize| {
            let [q, k, v] = [q, k, v].map(|m| m.row_range(sample * tokens, tokens));
            Tokens { q, k, v, heads, scale: 0.25 }
        };
        // Products of a pair of tokens: 2 forward; backward the scores again, and 4.
        let work = |products: usize| Work {
            flops: (2 * products * SAMPLES * tokens * tokens * cols) as f64,
            bytes: (size_of::<f32>() * (products + 2) * rows * cols) as f64,
        };
        let name = format!("{tokens} tokens, {heads} heads of {width}");
        let [out, dq, dk, dv] = &mut outputs;
        case(&mut group, machine, &name, work(2), || {
            for sample in 0..SAMPLES {
                let mut out = MatMut::new(out.as_mut(), rows, cols);
                let out = out.row_range(sample * tokens, tokens);
                self_attention(isa, of(sample), scratch.as_mut(), out);
            }
        });
        case(&mut group, machine, &format!("{name}, gradients"), work(5), || {
            for sample in 0..SAMPLES {
                let dout = dout.row_range(sample * tokens, tokens);
                let [dq, dk, dv] = [&mut *dq, &mut *dk, &mut *dv].map(|to| {
                    let to = MatMut::new(to.as_mut(), rows, cols).into_row_range(sample * tokens, tokens);
                    Some(Sink { to, accumulate: false })
                });
                self_attention_backward(isa, of(sample), dout, scratch.as_mut(), dq, dk, dv);
            }
        });
    }
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    attentions(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
