use crate::testing::{close, values, widen};
use manygate_kernels::gate::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

fn reference(sources: usize, scale: f64, width: usize, row: &[f64]) -> Vec<f64> {
    let part = |u: usize, part: usize| &row[(3 * u + part) * width..][..width];
    let score = |u| scale * part(u, 0).iter().zip(part(u, 1)).map(|(k, q)| k * q).sum::<f64>();
    let terms: Vec<f64> = (0..sources).map(|u| score(u).exp()).collect();
    let total: f64 = terms.iter().sum();
    (0..width).map(|c| (0..sources).map(|u| terms[u] / total * part(u, 2)[c]).sum()).collect()
}

proptest! {
    #[test]
    fn mixtures_and_gradients_agree_with_f64(
        sources in 1usize..4, width in 1usize..40, rows in 1usize..4, accumulate: bool, seed: u64,
    ) {
        let cols = 3 * sources * width;
        let (kqv, dy) = (values(seed, rows * cols, 1.0), values(seed ^ 1, rows * width, 1.0));
        let scale = 1.0 / (width as f32).sqrt();
        let of = |row: &[f64]| reference(sources, f64::from(scale), width, row);
        for isa in Isa::available() {
            let (mut weights, mut y) = (vec![7.0; rows * sources], vec![7.0; rows * width]);
            let view = Mat::new(&kqv, rows, cols);
            self_scored(isa, sources, scale, view, MatMut::new(&mut weights, rows, sources),
                MatMut::new(&mut y, rows, width));
            let mut d = vec![if accumulate { 0.5 } else { f32::NAN }; kqv.len()];
            self_scored_dx(isa, sources, scale, view, Mat::new(&weights, rows, sources),
                Mat::new(&dy, rows, width), accumulate, MatMut::new(&mut d, rows, cols));
            let before = if accumulate { 0.5 } else { 0.0 };
            for r in 0..rows {
                let row = widen(&kqv[r * cols..][..cols]);
                for (c, expected) in of(&row).into_iter().enumerate() {
                    prop_assert!(close(y[r * width + c], expected, 2e-6), "{isa} y");
                }
                for at in 0..cols {
                    let side = |h: f64| -> f64 {
                        let mut row = row.clone();
                        row[at] += h;
                        of(&row).iter().zip(&dy[r * width..]).map(|(y, &d)| y * f64::from(d)).sum()
                    };
                    let slope = (side(1e-4) - side(-1e-4)) / 2e-4;
                    prop_assert!(close(d[r * cols + at], before + slope, 1e-5), "{isa} d {at}");
                }
            }
        }
    }
}
