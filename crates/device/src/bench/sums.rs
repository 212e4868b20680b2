//! Sums over the rows of a batch that are gradients of what exists once, or statistics: of layers in `layers.rs` and
//! `scenarios.rs`. They are f64 or f32 whatever they are of.

use super::Size;
use super::case::{Case, Prepared};
use super::layer::{Layer, widths};
use super::layers::{NETWORKS, PRUNING, SCENARIOS, amplitude, bend, sums_of_fields};
use super::mmoe::{Layers, tolerance};
use super::reference::{Error, dot, sample};
use super::scenarios::{TASKS, halves, normalised, plain};
use super::workbench::Workbench;
use manygate_cuda::activation::{BendGradients, dice_backward, dice_scratch};
use manygate_cuda::amplitude::{pruned_share, pruned_share_scratch};
use manygate_cuda::device::DeviceError;
use manygate_cuda::layer_norm::{layer_norm_backward, layer_norm_scratch};
use manygate_cuda::scenario::{level_fusion_dnumbers, level_fusion_scratch};
use manygate_cuda::stitch::{Weights, stitch_dweights, stitch_dweights_scratch};
use manygate_cuda::{Element, Precision};

/// Columns of a sum that are compared.
const COMPARED: u32 = 16;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, .. }, _] = Layers::all(size);
    let [units, _, side] = widths(size);
    let of_units = [("units", units), ("width", 1)];
    let of_scenarios = [("scenarios", SCENARIOS), ("width", side)];
    let of_layer = |layer: Layer| {
        let of_networks = [("networks", NETWORKS), ("width", units / 2)];
        [
            layer.prepared("pruned_share", units, of_units, pruned),
            layer.prepared("dice_sums", 2 * units, of_units, bent),
            layer.prepared("layer_norm_sums", 2 * units, of_units, normal),
            layer.prepared("stitch_dweights", NETWORKS * units, of_networks, stitched),
            layer.prepared("level_fusion_dnumbers", (2 * TASKS + SCENARIOS) * side, of_scenarios, fused),
        ]
        .map(|case| Case { tolerance: tolerance(Precision::F32), ..case })
    };
    Layer::both(rows).into_iter().flat_map(of_layer).collect()
}

/// What is pruned is what would be multiplied by less than 1.
fn pruned(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (r, share, rows) = (layer.random(bench, units)?, bench.allocate(4)?, layer.rows);
    let scratch = bench.allocate(pruned_share_scratch(rows, units))?;
    Prepared::new(pruned_share(PRUNING, r.mat, share, scratch), move |bench| {
        let open = (0..rows).flat_map(|row| (0..units).map(move |col| r.at(row, col))).filter(|&r| r > 0.0);
        let all = f64::from(rows) * f64::from(units);
        let mut error = Error::default();
        error.add(bench.download::<f32>(share, 1)?[0], 1.0 - open.count() as f64 / all);
        Ok(error.relative())
    })
}

/// The gradients of means, of variances and of slopes.
fn bent(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (x, dy, rows) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.rows);
    let (bend, slopes) = bend(units, bench)?;
    let found = bench.mat_with(3, units, units, Element::F32)?;
    let scratch = bench.allocate(dice_scratch(rows, units))?;
    let of_slopes = found.address + 8 * u64::from(units);
    let sums =
        BendGradients { moments: Some((found.address, false)), slopes: Some((of_slopes, false)), scratch };
    Prepared::new(dice_backward(x.mat, bend, dy.mat, None, sums), move |bench| {
        let mut errors = [Error::default(); 3];
        let found = [bench.row(found, 0)?, bench.row(found, 1)?, bench.row(found, 2)?];
        for col in sample(units, COMPARED) {
            let (mut expected, a) = ([0.0; 3], f64::from(slopes.at(0, col)));
            for row in 0..rows {
                let (x, dy) = (f64::from(x.at(row, col)), f64::from(dy.at(row, col)));
                let p = amplitude(x).0 / 2.0;
                let of_mean = -dy * x * (1.0 - a) * p * (1.0 - p);
                let terms = [of_mean, of_mean * x / 2.0, dy * x * (1.0 - p)];
                expected.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
            for ((error, found), expected) in errors.iter_mut().zip(&found).zip(expected) {
                error.add(found[col as usize], expected);
            }
        }
        Ok(errors.map(Error::relative).into_iter().fold(0.0, f64::max))
    })
}

/// The gradients of γ and β.
fn normal(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (x, dy, rows) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.rows);
    let (normal, _) = plain(units, bench)?;
    let found = bench.mat_with(2, units, units, Element::F32)?;
    let scratch = bench.allocate(layer_norm_scratch(rows, units, 1))?;
    let [d_gamma, d_beta] = [0, 4 * u64::from(units)].map(|offset| Some((found.address + offset, false)));
    let launches = layer_norm_backward(normal, x.mat, dy.mat, None, d_gamma, d_beta, scratch);
    Prepared::new(launches, move |bench| {
        let columns: Vec<u32> = sample(units, COMPARED).collect();
        let mut expected = vec![(0.0, 0.0); columns.len()];
        for row in 0..rows {
            let (normal, _) = normalised(&x.row(row));
            for (&col, (of_gamma, of_beta)) in columns.iter().zip(&mut expected) {
                let dy = f64::from(dy.at(row, col));
                *of_gamma += dy * normal[col as usize];
                *of_beta += dy;
            }
        }
        let (mut of_gamma, mut of_beta) = (Error::default(), Error::default());
        let found = [bench.row(found, 0)?, bench.row(found, 1)?];
        for (&col, expected) in columns.iter().zip(expected) {
            of_gamma.add(found[0][col as usize], expected.0);
            of_beta.add(found[1][col as usize], expected.1);
        }
        Ok(of_gamma.relative().max(of_beta.relative()))
    })
}

/// Of one weight for each pair of networks.
fn stitched(layer: Layer, networks: u32, units: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (x, dy) = (layer.random(bench, networks * units)?, layer.random(bench, networks * units)?);
    let found = bench.mat_with(networks, networks, networks, Element::F32)?;
    let scratch = bench.allocate(stitch_dweights_scratch(layer.rows, networks, units))?;
    let launches = stitch_dweights(x.mat, dy.mat, false, Weights::new(found), scratch);
    Prepared::new(launches, move |bench| {
        let mut expected = vec![vec![0.0; networks as usize]; networks as usize];
        for row in 0..layer.rows {
            let (x, dy) = (x.row(row), dy.row(row));
            for (sums, dy) in expected.iter_mut().zip(dy.chunks(units as usize)) {
                sums.iter_mut().zip(x.chunks(units as usize)).for_each(|(sum, x)| *sum += dot(dy, x));
            }
        }
        let mut error = Error::default();
        for (row, expected) in (0..).zip(&expected) {
            error.add_all(&bench.row(found, row)?, expected);
        }
        Ok(error.relative())
    })
}

/// The products of a gradient with the own one of some experts, and with all of them.
fn products(d: &[f64], experts: &[f64], own: usize) -> [f64; 2] {
    let all: Vec<f64> = experts.chunks(d.len()).map(|expert| dot(d, expert)).collect();
    [all[own], all.iter().sum()]
}

/// The gradients of the numbers of α and β, all shares being a half, of such products summed over rows.
fn at_halves([own, all]: [f64; 2], count: u32) -> [f64; 2] {
    let others = (all - own) / f64::from(count - 1);
    [(own + others) / 8.0, (own - others) / 8.0]
}

fn fused(layer: Layer, scenarios: u32, width: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (tasks, dy) = (layer.random(bench, TASKS * width)?, layer.random(bench, TASKS * width)?);
    let (domains, fusion) = (layer.random(bench, scenarios * width)?, halves(layer, bench)?);
    let (found, scratch) = (bench.allocate(16)?, bench.allocate(level_fusion_scratch())?);
    let launches = level_fusion_dnumbers(fusion, domains.mat, tasks.mat, dy.mat, found, false, scratch);
    Prepared::new(launches.into(), move |bench| {
        let (mut of_domains, mut of_tasks) = ([0.0; 2], [0.0; 2]);
        let add = |sums: &mut [f64; 2], terms: [f64; 2]| {
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        };
        for row in 0..layer.rows {
            let (domains, tasks, dy) = (domains.row(row), tasks.row(row), dy.row(row));
            let all = sums_of_fields(&dy, width);
            add(&mut of_domains, products(&all, &domains, (row % scenarios) as usize));
            let each = dy.chunks(width as usize).enumerate();
            each.for_each(|(t, d)| add(&mut of_tasks, products(d, &tasks, t)));
        }
        let ([alpha_d, beta_d], [alpha_t, beta_t]) =
            (at_halves(of_domains, scenarios), at_halves(of_tasks, TASKS));
        let found: Vec<f64> = bench.download::<f32>(found, 4)?.into_iter().map(f64::from).collect();
        let mut error = Error::default();
        error.add_all(&found, &[alpha_d, alpha_t, beta_d, beta_t]);
        Ok(error.relative())
    })
}
