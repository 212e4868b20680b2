//! Plain loops in f64 that the tests of this folder compare with.

use manygate_kernels::embedding::{GradientSources, RowOptimizer};

/// Sorted keys of look-ups whose gradient rows go round `sources` sources of `rows` rows.
pub(crate) fn keys(ids: &[u32], sources: usize, rows: usize, row_bits: u32) -> Vec<u64> {
    let position = |i: usize| (((i % sources) << row_bits) | ((i / sources) % rows)) as u64;
    let mut keys: Vec<u64> =
        ids.iter().enumerate().map(|(i, &id)| (u64::from(id) << 32) | position(i)).collect();
    keys.sort_unstable();
    keys
}

/// Each distinct id with the sum of its gradient rows.
pub(crate) fn summed(keys: &[u64], sources: GradientSources<'_>, dim: usize) -> Vec<(u32, Vec<f64>)> {
    let mut sums: Vec<(u32, Vec<f64>)> = Vec::new();
    for &key in keys {
        let id = (key >> 32) as u32;
        if sums.last().is_none_or(|last| last.0 != id) {
            sums.push((id, vec![0.0; dim]));
        }
        let sum = &mut sums.last_mut().expect("one was pushed").1;
        sum.iter_mut().zip(sources.row(key)).for_each(|(sum, &g)| *sum += f64::from(g));
    }
    sums
}

/// The table after one update.
pub(crate) fn updated(
    keys: &[u64],
    sources: GradientSources<'_>,
    table: &[f32],
    dim: usize,
    stride: usize,
    optimizer: &RowOptimizer,
    skip_id_zero: bool,
) -> Vec<f64> {
    let mut table: Vec<f64> = table.iter().map(|&x| f64::from(x)).collect();
    for (id, sum) in summed(keys, sources, dim) {
        if id == 0 && skip_id_zero {
            continue;
        }
        let row = &mut table[id as usize * stride..][..stride];
        match *optimizer {
            RowOptimizer::LazyAdam { rate, beta1, beta2, epsilon, correction, l2 } => {
                let [rate, beta1, beta2, epsilon, correction, l2] =
                    [rate, beta1, beta2, epsilon, correction, l2].map(f64::from);
                for c in 0..dim {
                    let g = sum[c] + l2 * row[c];
                    row[dim + c] = beta1 * row[dim + c] + (1.0 - beta1) * g;
                    row[2 * dim + c] = beta2 * row[2 * dim + c] + (1.0 - beta2) * g * g;
                    row[c] -= rate * correction * row[dim + c] / (row[2 * dim + c].sqrt() + epsilon);
                }
            }
            RowOptimizer::Adagrad { rate, epsilon, l2 } => {
                for c in 0..dim {
                    let g = sum[c] + f64::from(l2) * row[c];
                    row[dim + c] += g * g;
                    row[c] -= f64::from(rate) * g / (row[dim + c].sqrt() + f64::from(epsilon));
                }
            }
            RowOptimizer::Ftrl { alpha, beta, l1, l2 } => {
                let [alpha, beta, l1, l2] = [alpha, beta, l1, l2].map(f64::from);
                for c in 0..dim {
                    let (w, z, n) = (row[c], row[dim + c], row[2 * dim + c]);
                    let sign = if w == 0.0 { 0.0 } else { w.signum() };
                    let z = if n > 0.0 { z } else { -((beta / alpha + l2) * w + sign * l1) };
                    let moved = n + sum[c] * sum[c];
                    let z = z + sum[c] - (moved.sqrt() - n.sqrt()) / alpha * w;
                    let outside = if z.abs() <= l1 { 0.0 } else { z - z.signum() * l1 };
                    row[c] = -outside / ((beta + moved.sqrt()) / alpha + l2);
                    (row[dim + c], row[2 * dim + c]) = (z, moved);
                }
            }
            RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 } => {
                let g: Vec<f64> = (0..dim).map(|c| sum[c] + f64::from(l2) * row[c]).collect();
                row[dim] += g.iter().map(|g| g * g).sum::<f64>() / dim.max(1) as f64;
                for c in 0..dim {
                    row[c] -= f64::from(rate) * g[c] / (row[dim].sqrt() + f64::from(epsilon));
                }
            }
            RowOptimizer::Sgd { rate, l2 } => {
                for c in 0..dim {
                    row[c] -= f64::from(rate) * (sum[c] + f64::from(l2) * row[c]);
                }
            }
        }
    }
    table
}
