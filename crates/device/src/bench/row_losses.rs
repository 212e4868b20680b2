//! Losses of classes and of numbers, and gradients of a loss as values, in f32 and bf16; losses of what exists once, and the
//! means of all parts, in f32.

use super::Size;
use super::case::{Case, Prepared};
use super::layer::{Layer, Made, compare_rows};
use super::layers::{CLASSES, SCENARIOS};
use super::losses::{label, labels, sigmoid};
use super::mmoe::{Layers, tolerance};
use super::reference::{Error, dot, gate, sample};
use super::scenarios::in_turn;
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::loss::{LossSum, Range, losses_finite, range_penalty};
use manygate_cuda::row::{bce_residual, bce_residual_dz, cross_entropy, mean_square, partials_bytes};
use manygate_cuda::transfer::{Conflict, Present, gradient_conflict, gradient_conflict_scratch};
use manygate_cuda::{DeviceMat, Element, Precision};

/// What gradients are multiplied by.
const SCALE: f32 = 0.75;
/// The range that numbers are drawn into: about half of them lie there.
const RANGE: Range = Range { low: -0.25, high: 0.75, factor: 2.0 };
/// Parts of a loss.
const PARTS: u32 = 16;
/// Values of a gradient that are compared, and how far they are moved for that.
const COMPARED: u32 = 32;
const STEP: f64 = 1e-3;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, .. }, _] = Layers::all(size);
    let (numbers, parameters) = match size {
        Size::Full => (1024, 4096),
        Size::Small => (20, 300),
    };
    let one = [("numbers", 1), ("width", 1)];
    let of_layer = |layer: Layer| {
        [
            layer.prepared(
                "cross_entropy",
                2 * CLASSES + 1,
                [("classes", CLASSES), ("width", 1)],
                of_classes,
            ),
            layer.prepared("mean_square", 2, one, of_squares),
            layer.case("bce_residual", 3, one, residual),
            layer.case("bce_residual_dz", 3, one, residual_dz),
        ]
    };
    let once = [drawn(numbers), finite(), conflict(parameters)];
    Layer::both(rows).into_iter().flat_map(of_layer).chain(once).collect()
}

/// Where the sum of a loss goes.
fn loss_sum(layer: Layer, cols: u32, bench: &mut Workbench) -> Result<LossSum, DeviceError> {
    Ok(LossSum { sum: bench.zeros(8)?, partials: bench.allocate(partials_bytes(layer.rows, cols))? })
}

/// Compares a gradient, and the sum of a loss, which is f64 whatever it is of: its error counts by as much more.
fn compare(
    bench: &Workbench,
    layer: Layer,
    gradient: (DeviceMat, &dyn Fn(u32) -> Vec<f64>),
    loss: (u64, f64),
) -> Result<f64, DeviceError> {
    let mut of_sum = Error::default();
    of_sum.add(bench.download::<f64>(loss.0, 1)?[0], loss.1);
    let exact = tolerance(Precision::F32) / tolerance(layer.precision);
    Ok(compare_rows(bench, gradient.0, gradient.1)?.max(of_sum.relative() / exact))
}

fn of_classes(layer: Layer, classes: u32, _: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (z, dz, rows) = (layer.random(bench, classes)?, layer.mat(bench, classes)?, layer.rows);
    let ((ids, stream), loss) = (bench.ids(rows.into(), classes)?, loss_sum(layer, classes, bench)?);
    let scale = bench.upload_f32([SCALE])?;
    let launches = cross_entropy(z.mat, ids, scale, Some((dz, false)), Some(loss));
    // The probabilities of a row, and the class that it is of.
    let of_row = move |row: u32| {
        let (probabilities, _) = gate(1, &z.row(row), &vec![0.0; classes as usize]);
        (probabilities, stream.id(row.into(), classes) as usize)
    };
    Prepared::new(launches, move |bench| {
        let sum = (0..rows).map(&of_row).map(|(p, class)| -p[class].ln()).sum();
        let gradient = |row| {
            let (mut gradient, class) = of_row(row);
            gradient[class] -= 1.0;
            gradient.iter().map(|d| f64::from(SCALE) * d).collect()
        };
        compare(bench, layer, (dz, &gradient), (loss.sum, sum))
    })
}

fn of_squares(layer: Layer, _: u32, _: u32, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (x, dx, loss) = (layer.random(bench, 1)?, layer.mat(bench, 1)?, loss_sum(layer, 1, bench)?);
    let launches = mean_square(x.mat, bench.upload_f32([SCALE])?, Some((dx, false)), Some(loss));
    Prepared::new(launches, move |bench| {
        let sum = (0..layer.rows).map(|row| f64::from(x.at(row, 0)).powi(2)).sum();
        let gradient = |row| vec![2.0 * f64::from(SCALE) * x.row(row)[0]];
        compare(bench, layer, (dx, &gradient), (loss.sum, sum))
    })
}

fn residual(layer: Layer, _: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, found) = (layer.random(bench, 1)?, layer.mat(bench, 1)?);
    let launch = bce_residual(z.mat, labels(layer, 0, bench)?, found);
    let rows = f64::from(layer.rows);
    let expected = move |row| vec![(sigmoid(z.row(row)[0]) - f64::from(label(0, row))) / rows];
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn residual_dz(layer: Layer, _: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, dy, found) = (layer.random(bench, 1)?, layer.random(bench, 1)?, layer.mat(bench, 1)?);
    let launch = bce_residual_dz(z.mat, dy.mat, false, found);
    let rows = f64::from(layer.rows);
    let expected = move |row| {
        let p = sigmoid(z.row(row)[0]);
        vec![dy.row(row)[0] * p * (1.0 - p) / rows]
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The penalty of numbers that are not in the range, and its gradients.
fn drawn(numbers: u32) -> Case {
    Case::once("range_penalty", &[("numbers", numbers)], 16.0 * f64::from(numbers), move |bench| {
        let s = bench.random_contiguous(1, numbers, Element::F32, 1.0)?;
        let f = bench.random_contiguous(1, numbers, Element::F32, 1.0)?;
        let found = bench.mat_with(2, numbers, numbers, Element::F32)?;
        let (scale, sum) = (bench.upload_f32([SCALE])?, bench.zeros(8)?);
        let of_s = Some((found.address, false));
        let of_f = Some((found.address + 4 * u64::from(numbers), false));
        let [from_s, from_f] = [s, f].map(|values| values.mat.address);
        let launch = range_penalty(RANGE, from_s, from_f, numbers, scale, of_s, of_f, Some(sum));
        Prepared::new(vec![launch], move |bench| {
            let share = f64::from(SCALE) / f64::from(numbers);
            let (mut penalty, mut ds, mut df) = (0.0, Vec::new(), Vec::new());
            for (s, f) in s.row(0).into_iter().zip(f.row(0)) {
                let [s, beyond] = [s, f].map(|number| number - (RANGE.low + RANGE.high) / 2.0);
                let factor = if (RANGE.low..=RANGE.high).contains(&f) { 0.0 } else { RANGE.factor };
                penalty += factor * beyond.abs() * s.abs() / f64::from(numbers);
                ds.push(share * factor * beyond.abs() * s.signum());
                df.push(share * factor * beyond.signum() * s.abs());
            }
            let mut errors = [Error::default(); 3];
            errors[0].add(bench.download::<f64>(sum, 1)?[0], penalty);
            errors[1].add_all(&bench.row(found, 0)?, &ds);
            errors[2].add_all(&bench.row(found, 1)?, &df);
            Ok(errors.map(Error::relative).into_iter().fold(0.0, f64::max))
        })
    })
}

/// The means of the parts of a loss.
fn finite() -> Case {
    let case = Case::once("losses_finite", &[("parts", PARTS)], 24.0 * f64::from(PARTS), |bench| {
        let sums: Vec<f64> = (1..=PARTS).map(|part| 1.0 / f64::from(part)).collect();
        let divisors: Vec<f64> = (1..=PARTS).map(f64::from).collect();
        let mut upload = |values: &[f64]| {
            bench.upload(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
        };
        let (from, by) = (upload(&sums)?, upload(&divisors)?);
        let (means, go_on) = (bench.allocate(8 * u64::from(PARTS))?, bench.upload_u32([1])?);
        Prepared::new(vec![losses_finite(from, by, None, PARTS, means, go_on)], move |bench| {
            let expected: Vec<f64> = sums.iter().zip(&divisors).map(|(sum, by)| sum / by).collect();
            let mut error = Error::default();
            error.add_all(&bench.download::<f64>(means, PARTS as usize)?, &expected);
            error.add(bench.download::<u32>(go_on, 1)?[0], 1.0);
            Ok(error.relative())
        })
    });
    Case { tolerance: 1e-15, ..case }
}

/// Half of the squares of what each of several gradients has along those before it.
fn conflict_of(gradients: &[Vec<f64>]) -> f64 {
    let (mut basis, mut squares): (Vec<Vec<f64>>, f64) = (Vec::new(), 0.0);
    for gradient in gradients {
        let mut taken = vec![0.0; gradient.len()];
        for c in &basis {
            let along = dot(c, gradient) / dot(c, c);
            taken.iter_mut().zip(c).for_each(|(taken, c)| *taken += along * c);
        }
        squares += dot(&taken, &taken);
        basis.push(gradient.iter().zip(&taken).map(|(g, taken)| g - taken).collect());
    }
    squares / 2.0
}

/// The gradient of the conflict of the gradients of scenarios, compared with differences of it.
fn conflict(parameters: u32) -> Case {
    let sizes = [("scenarios", SCENARIOS), ("parameters", parameters)];
    let bytes = 12.0 * f64::from(SCENARIOS) * f64::from(parameters);
    Case::once("gradient_conflict", &sizes, bytes, move |bench| {
        let g = bench.random_contiguous(SCENARIOS, parameters, Element::F32, 1.0)?;
        let dg = DeviceMat { address: bench.zeros(4 * u64::from(SCENARIOS * parameters))?, ..g.mat };
        let present = Present { scenario: in_turn(SCENARIOS, bench)?, rows: bench.upload_u32([SCENARIOS])? };
        let scratch = bench.allocate(gradient_conflict_scratch(SCENARIOS, parameters))?;
        let what = Conflict::Gradient { scale: bench.upload_f32([1.0])?, dg };
        let launch = gradient_conflict(g.mat, present, false, what, scratch);
        Prepared::new(vec![launch], move |bench| compare_conflict(bench, g, dg))
    })
}

fn compare_conflict(bench: &Workbench, g: Random, dg: DeviceMat) -> Result<f64, DeviceError> {
    let mut gradients: Vec<Vec<f64>> = (0..SCENARIOS).map(|scenario| g.row(scenario)).collect();
    let mut error = Error::default();
    for scenario in 0..SCENARIOS {
        let found = bench.row(dg, scenario)?;
        for i in sample(g.mat.cols, COMPARED / SCENARIOS) {
            let (own, i) = (scenario as usize, i as usize);
            let value = gradients[own][i];
            let [above, below] = [STEP, -STEP].map(|step| {
                gradients[own][i] = value + step;
                conflict_of(&gradients)
            });
            gradients[own][i] = value;
            error.add(found[i], (above - below) / (2.0 * STEP));
        }
    }
    Ok(error.relative())
}
