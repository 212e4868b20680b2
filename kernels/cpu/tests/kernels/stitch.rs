use crate::testing::{close, values};
use manygate_kernels::isa::Isa;
use manygate_kernels::stitch::*;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

proptest! {
    #[test]
    fn mixing_and_its_gradients_agree_with_f64(
        tasks in 1usize..5, units in 1usize..40, rows in 0usize..5, per_unit: bool, transposed: bool,
        accumulate: bool, seed: u64,
    ) {
        let (cols, each) = (tasks * units, if per_unit { units } else { 1 });
        let (x, dy) = (values(seed, rows * cols, 1.0), values(seed ^ 1, rows * cols, 1.0));
        let weights = values(seed ^ 2, tasks * tasks * each, 1.0);
        let a = |t: usize, j: usize, c: usize| {
            f64::from(weights[(t * tasks + j) * each + if per_unit { c } else { 0 }])
        };
        let before = if accumulate { 0.5 } else { 0.0 };
        for isa in Isa::available() {
            let mut y = vec![if accumulate { 0.5 } else { f32::NAN }; rows * cols];
            let (x_view, dy_view) = (Mat::new(&x, rows, cols), Mat::new(&dy, rows, cols));
            stitch(isa, tasks, &weights, transposed, x_view, accumulate, MatMut::new(&mut y, rows, cols));
            for (at, &y) in y.iter().enumerate() {
                let (r, t, c) = (at / cols, at % cols / units, at % units);
                let term = |j: usize| {
                    let weight = if transposed { a(j, t, c) } else { a(t, j, c) };
                    weight * f64::from(x[r * cols + j * units + c])
                };
                prop_assert!(close(y, before + (0..tasks).map(term).sum::<f64>(), 2e-6), "{isa}");
            }
            let mut d = vec![0.25; weights.len()];
            stitch_dweights(isa, tasks, x_view, dy_view, &mut d);
            for (at, &d) in d.iter().enumerate() {
                let (t, j, unit) = (at / each / tasks, at / each % tasks, at % each);
                let product = |r: usize, c: usize| {
                    f64::from(x[r * cols + j * units + c]) * f64::from(dy[r * cols + t * units + c])
                };
                let of_row = |r: usize| -> f64 {
                    if per_unit { product(r, unit) } else { (0..units).map(|c| product(r, c)).sum() }
                };
                prop_assert!(close(d, 0.25 + (0..rows).map(of_row).sum::<f64>(), 5e-6), "{isa}");
            }
        }
    }
}
