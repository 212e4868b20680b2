use crate::testing::{close, values};
use manygate_kernels::activation::Activation;
use manygate_kernels::amplitude::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

const PRUNING: Pruning = Pruning { scale: 1.5, steepness: 2.0, threshold: 0.6 };
const ALL: [Amplitude; 6] = [
    Amplitude::Sigmoid(2.0),
    Amplitude::Exp,
    Amplitude::OnePlus,
    Amplitude::Pruned(PRUNING),
    Amplitude::Mask { pruning: PRUNING, straight_through: true },
    Amplitude::Mask { pruning: PRUNING, straight_through: false },
];

fn weight(pruning: Pruning, r: f64) -> f64 {
    f64::from(pruning.scale) / (1.0 + (-f64::from(pruning.steepness) * r).exp())
}

fn weight_slope(pruning: Pruning, r: f64) -> f64 {
    let h = 1e-5;
    (weight(pruning, r + h) - weight(pruning, r - h)) / (2.0 * h)
}

/// The amplitude and the slope that it is given.
fn exact(amplitude: Amplitude, r: f64) -> (f64, f64) {
    match amplitude {
        Amplitude::Sigmoid(scale) => {
            let all = Pruning { scale, steepness: 1.0, threshold: 0.0 };
            (weight(all, r), weight_slope(all, r))
        }
        Amplitude::Exp => (r.exp(), r.exp()),
        Amplitude::OnePlus => (1.0 + r, 1.0),
        Amplitude::Pruned(p) => match weight(p, r) > f64::from(p.threshold) {
            true => (weight(p, r), weight_slope(p, r)),
            false => (0.0, 0.0),
        },
        Amplitude::Mask { pruning: p, straight_through } => {
            let open = f64::from(u8::from(weight(p, r) > f64::from(p.threshold)));
            (open, if straight_through { weight_slope(p, r) } else { 0.0 })
        }
    }
}

proptest! {
    #[test]
    fn units_and_gradients_agree_with_f64(
        rows in 0usize..5, parts in prop::collection::vec(1usize..21, 1..20), one_each: bool, table: bool,
        pad in 0usize..3, accumulate: bool, masked: bool, seed: u64,
    ) {
        let parts = if one_each { Vec::new() } else { parts };
        let (n, units) = if one_each { (seed as usize % 40, seed as usize % 40) }
            else { (parts.len(), parts.iter().sum()) };
        let stride = units + pad;
        let source: Vec<u32> = (0..rows as u32).map(|r| (r * 7) % 3).collect();
        let r_rows = if table { 3 } else { rows };
        let [x, dy, old, h] = [0, 1, 2, 3].map(|i| values(seed ^ i, rows * stride, 2.0));
        let [r, old_dr] = [4, 5].map(|i| values(seed ^ i, r_rows * n, 2.0));
        let unit_of: Vec<usize> = if one_each { (0..n).collect() } else {
            parts.iter().enumerate().flat_map(|(g, &width)| std::iter::repeat_n(g, width)).collect() };
        let arguments = Arguments {
            values: Mat::new(&r, r_rows, n), rows: table.then_some(&source[..]), parts: &parts };
        let view = |data| Mat::strided(data, rows, units, stride);
        for (isa, amplitude) in Isa::available().into_iter().flat_map(|isa| ALL.map(|a| (isa, a))) {
            let [mut y, mut dx, mut dr] = [&old, &old, &old_dr].map(Clone::clone);
            amplify(isa, amplitude, view(&x), arguments, MatMut::strided(&mut y, rows, units, stride));
            let mask = masked.then_some((Activation::Relu, view(&h)));
            amplify_backward(isa, amplitude, view(&x), arguments, view(&dy),
                Some(Target { to: MatMut::strided(&mut dx, rows, units, stride), accumulate }), mask,
                Some(Target { to: MatMut::new(&mut dr, r_rows, n), accumulate }));
            let mut sums: Vec<f64> = old_dr.iter().map(|&v| if accumulate { f64::from(v) } else { 0.0 }).collect();
            for (row, c) in (0..rows).flat_map(|row| (0..stride).map(move |c| (row, c))) {
                let i = row * stride + c;
                if c >= units {
                    prop_assert_eq!((y[i], dx[i]), (old[i], old[i]), "padding was written");
                    continue;
                }
                let at = (if table { source[row] as usize } else { row }) * n + unit_of[c];
                let (x, dy, r) = (f64::from(x[i]), f64::from(dy[i]), f64::from(r[at]));
                let (a, slope) = exact(amplitude, r);
                prop_assert!(close(y[i], a * x, 1e-6), "{isa} {amplitude:?}: {}", y[i]);
                let before = if accumulate { f64::from(old[i]) } else { 0.0 };
                let open = if masked && h[i] <= 0.0 { 0.0 } else { 1.0 };
                prop_assert!(close(dx[i], open * (before + a * dy), 2e-6), "{isa} {amplitude:?}: {}", dx[i]);
                sums[at] += dy * x * slope;
            }
            for (got, expected) in dr.iter().zip(&sums) {
                prop_assert!(close(*got, *expected, 1e-5), "{isa} {amplitude:?}: {got}, {expected}");
            }
        }
    }
}

proptest! {
    #[test]
    fn counts_and_their_gradients_agree_with_f64(
        rows in 0usize..5, cols in 0usize..40, pad in 0usize..3, accumulate: bool, seed: u64,
    ) {
        let stride = cols + pad;
        let [r, old] = [0, 1].map(|i| values(seed ^ i, rows * stride, 2.0));
        let inside = |i: &usize| i % stride < cols;
        let exactly = |i: usize| weight(PRUNING, f64::from(r[i]));
        let open = (0..rows * stride).filter(inside).filter(|&i| exactly(i) > f64::from(PRUNING.threshold));
        let open = open.count() as f64;
        for isa in Isa::available() {
            let view = Mat::strided(&r, rows, cols, stride);
            prop_assert_eq!(unpruned(isa, PRUNING, view), open);
            let mut dr = old.clone();
            let to = MatMut::strided(&mut dr, rows, cols, stride);
            pruning_dr(isa, PRUNING, view, 0.3, Target { to, accumulate });
            for i in 0..rows * stride {
                let before = if accumulate || !inside(&i) { f64::from(old[i]) } else { 0.0 };
                let add = if inside(&i) { f64::from(0.3f32) * weight_slope(PRUNING, f64::from(r[i])) } else { 0.0 };
                prop_assert!(close(dr[i], before + add, 2e-6), "{isa}: {}", dr[i]);
            }
        }
    }
}

#[test]
fn nan_is_never_hidden() {
    let (x, r) = ([f32::NAN, 1.0, 1.0], [0.0, f32::NAN, 0.0]);
    for (isa, amplitude) in Isa::available().into_iter().flat_map(|isa| ALL.map(|a| (isa, a))) {
        let mut y = [0.0; 3];
        let arguments = Arguments { values: Mat::new(&r, 1, 3), rows: None, parts: &[] };
        amplify(isa, amplitude, Mat::new(&x, 1, 3), arguments, MatMut::new(&mut y, 1, 3));
        assert!(y[0].is_nan() && y[1].is_nan() && !y[2].is_nan(), "{isa} {amplitude:?}: {y:?}");
    }
}
