//! Batch normalisation: statistics of columns, the normalisation, and their gradients.

use super::Size;
use super::case::{Case, Prepared};
use super::layer::{Layer, Made, widths};
use super::layers::SCENARIOS;
use super::mmoe::{Layers, tolerance};
use super::reference::{Error, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::norm::{
    Groups, batch_moments, batch_moments_dx, batch_moments_scratch, move_running, normalise, normalise_dx,
    normalise_sums, normalise_sums_scratch,
};
use manygate_cuda::{Element, Precision};
use manygate_kernels::activation::Activation;

const EPSILON: f32 = 1e-5;
const MOMENTUM: f32 = 0.1;
/// Columns of a sum that are compared.
const COMPARED: u32 = 16;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, .. }, _] = Layers::all(size);
    let [units, ..] = widths(size);
    let of_units = [("units", units), ("width", 1)];
    // Sums are f64 whatever they are of.
    let exact = |case: Case| Case { tolerance: tolerance(Precision::F32), ..case };
    let of_layer = |layer: Layer| {
        [
            exact(layer.prepared("batch_moments", units, of_units, moments)),
            layer.case("normalise", 2 * units, of_units, normal),
            exact(layer.prepared("normalise_sums", 2 * units, of_units, sums)),
            layer.case("normalise_dx", 2 * units, of_units, normal_dx),
            layer.case("batch_moments_dx", 2 * units, of_units, moments_dx),
        ]
    };
    Layer::both(rows).into_iter().flat_map(of_layer).chain([running(units, rows)]).collect()
}

/// Mean and variance of a column.
fn moments_of(col: u32) -> (f32, f32) {
    ((col % 7) as f32 / 8.0 - 0.375, 0.5 + (col % 5) as f32 / 4.0)
}

/// What columns are normalised with: moments, γ and β.
#[derive(Clone, Copy)]
struct Columns {
    moments: u64,
    gamma: Random,
    beta: Random,
}

impl Columns {
    fn new(units: u32, bench: &mut Workbench) -> Result<Columns, DeviceError> {
        let all = (0..units).map(|col| moments_of(col).0).chain((0..units).map(|col| moments_of(col).1));
        Ok(Columns {
            moments: bench.upload_f32(all)?,
            gamma: bench.random_contiguous(1, units, Element::F32, 1.0)?,
            beta: bench.random_contiguous(1, units, Element::F32, 1.0)?,
        })
    }
}

fn deviation(col: u32) -> f64 {
    (f64::from(moments_of(col).1) + f64::from(EPSILON)).sqrt()
}

/// A value of a column, normalised.
fn normalised(x: f32, col: u32) -> f64 {
    (f64::from(x) - f64::from(moments_of(col).0)) / deviation(col)
}

fn moments(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (x, rows) = (layer.random(bench, units)?, layer.rows);
    let found = bench.mat_with(2, units, units, Element::F32)?;
    let scratch = bench.allocate(batch_moments_scratch(1, rows, units))?;
    let launches = batch_moments(Groups::ONE, x.mat, found.address, scratch);
    Prepared::new(launches, move |bench| {
        let (means, variances) = (bench.row(found, 0)?, bench.row(found, 1)?);
        let (mut of_means, mut of_variances) = (Error::default(), Error::default());
        for col in sample(units, COMPARED) {
            let values: Vec<f64> = (0..rows).map(|row| x.at(row, col).into()).collect();
            let mean = values.iter().sum::<f64>() / f64::from(rows);
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(rows);
            of_means.add(means[col as usize], mean);
            of_variances.add(variances[col as usize], variance);
        }
        Ok(of_means.relative().max(of_variances.relative()))
    })
}

fn normal(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found) = (layer.random(bench, units)?, layer.mat(bench, units)?);
    let Columns { moments, gamma, beta } = Columns::new(units, bench)?;
    let [of_gamma, of_beta] = [gamma, beta].map(|vector| vector.mat.address);
    let act = Activation::Relu;
    let launch = normalise(Groups::ONE, x.mat, moments, of_gamma, of_beta, EPSILON, act, found);
    let expected = move |row| {
        let value = |col| f64::from(gamma.at(0, col)) * normalised(x.at(row, col), col);
        (0..units).map(|col| (value(col) + f64::from(beta.at(0, col))).max(0.0)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The gradients of the moments, of γ and of β.
fn sums(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (x, dz, rows) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.rows);
    let Columns { moments, gamma, .. } = Columns::new(units, bench)?;
    let found = bench.mat_with(4, units, units, Element::F32)?;
    let scratch = bench.allocate(normalise_sums_scratch(1, rows, units))?;
    let row = |row: u32| Some((found.address + 4 * u64::from(row) * u64::from(units), false));
    let [d_moments, d_gamma, d_beta] = [row(0), row(2), row(3)];
    let launches = normalise_sums(
        Groups::ONE,
        x.mat,
        moments,
        gamma.mat.address,
        EPSILON,
        dz.mat,
        d_moments,
        d_gamma,
        d_beta,
        scratch,
    );
    Prepared::new(launches, move |bench| {
        let mut errors = [Error::default(); 4];
        for (row, error) in (0..).zip(&mut errors) {
            let values = bench.row(found, row)?;
            for col in sample(units, COMPARED) {
                let of_rows = (0..rows).map(|row| (f64::from(dz.at(row, col)), x.at(row, col)));
                let (sum, product) = of_rows
                    .fold((0.0, 0.0), |(sum, product), (d, x)| (sum + d, product + d * normalised(x, col)));
                let scale = f64::from(gamma.at(0, col)) / deviation(col);
                let expected = [-scale * sum, -0.5 * scale / deviation(col) * product, product, sum];
                error.add(values[col as usize], expected[row as usize]);
            }
        }
        Ok(errors.map(Error::relative).into_iter().fold(0.0, f64::max))
    })
}

fn normal_dx(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, dz, found) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.mat(bench, units)?);
    let Columns { moments, gamma, .. } = Columns::new(units, bench)?;
    let of_gamma = gamma.mat.address;
    let launch = normalise_dx(Groups::ONE, x.mat, moments, of_gamma, EPSILON, dz.mat, false, found);
    let expected = move |row| {
        let scale = |col| f64::from(gamma.at(0, col)) / deviation(col);
        (0..units).map(|col| scale(col) * f64::from(dz.at(row, col))).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn moments_dx(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found, rows) = (layer.random(bench, units)?, layer.mat(bench, units)?, layer.rows);
    let moments = Columns::new(units, bench)?.moments;
    let d_moments = bench.random_contiguous(2, units, Element::F32, 1.0)?;
    let launch = batch_moments_dx(Groups::ONE, x.mat, moments, d_moments.mat.address, false, found);
    let expected = move |row| {
        let value = |col| {
            let [d_mean, d_variance] = [0, 1].map(|row| f64::from(d_moments.at(row, col)));
            let distance = f64::from(x.at(row, col)) - f64::from(moments_of(col).0);
            (d_mean + 2.0 * d_variance * distance) / f64::from(rows)
        };
        (0..units).map(value).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Moments of the rows of each scenario, all of which have as many.
fn running(units: u32, rows: u32) -> Case {
    let (sizes, values) = ([("scenarios", SCENARIOS), ("units", units)], 2 * SCENARIOS * units);
    Case::once("move_running", &sizes, 12.0 * f64::from(values), move |bench| {
        let of_each = rows / SCENARIOS;
        let starts = bench.upload_u32((0..=SCENARIOS).map(|scenario| scenario * of_each))?;
        let go_on = bench.upload_u32([1])?;
        let moments = bench.random_contiguous(1, values, Element::F32, 1.0)?;
        let state = bench.random_contiguous(1, values, Element::F32, 1.0)?;
        let (groups, to) = (Groups::of(starts, SCENARIOS as usize), state.mat);
        let launch = move_running(go_on, groups, units, moments.mat.address, MOMENTUM, false, to.address);
        Prepared::new(vec![launch], move |bench| {
            let before = state.row(0).into_iter().zip(moments.row(0));
            let moved: Vec<f64> = before.map(|(e, m)| e + f64::from(MOMENTUM) * (m - e)).collect();
            let mut error = Error::default();
            error.add_all(&bench.row(to, 0)?, &moved);
            Ok(error.relative())
        })
    })
}
