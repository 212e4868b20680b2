//! Arithmetic element by element; and weights that exist once: folded, the other way round, and cast.

use super::Size;
use super::case::{Case, Prepared};
use super::layer::{Layer, Made, compare_rows, widths};
use super::layers::{CLASSES, SCENARIOS};
use super::mmoe::{Layers, tolerance};
use super::reference::{Error, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::elementwise::{
    Matrices, add, add_scaled, broadcast, fill, fold, fold_dx, multiply, one_hot, transpose,
};
use manygate_cuda::gemm::{Casts, to_bf16};
use manygate_cuda::peak::Stream;
use manygate_cuda::{DeviceMat, Element, Precision};

/// What is filled in, and what is multiplied by.
const VALUE: f32 = 0.75;
/// Matrices that are turned.
const MATRICES: u32 = 8;
/// Values of a folded weight that are compared.
const COMPARED: u32 = 4096;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, inputs, hidden, .. }, _] = Layers::all(size);
    let [units, ..] = widths(size);
    let of_units = [("units", units), ("width", 1)];
    let of_layer = |layer: Layer| {
        [
            layer.case("add", 4 * units, of_units, added),
            layer.case("add_scaled", 3 * units, of_units, added_scaled),
            layer.case("multiply", 3 * units, of_units, multiplied),
            layer.case("broadcast", units, of_units, repeated),
            layer.case("fill", units, of_units, filled),
            layer.case("one_hot", CLASSES + 1, [("classes", CLASSES), ("width", 1)], named),
        ]
    };
    let weight = Weight { outputs: hidden, inputs };
    let once = [weight.fold(), weight.fold_dx(), weight.transpose(), weight.to_bf16()];
    Layer::both(rows).into_iter().flat_map(of_layer).chain(once).collect()
}

fn added(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (a, b, c) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.random(bench, units)?);
    let found = layer.mat(bench, units)?;
    let Ok([launch]) = <[_; 1]>::try_from(add(&[a.mat, b.mat, c.mat], found)) else {
        unreachable!("a launch takes four addends")
    };
    let expected = move |row| {
        let others = b.row(row).into_iter().zip(c.row(row));
        a.row(row).into_iter().zip(others).map(|(a, (b, c))| a + b + c).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn added_scaled(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (a, b, found) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.mat(bench, units)?);
    let launch = add_scaled(a.mat, VALUE, b.mat, found);
    let expected =
        move |row| a.row(row).into_iter().zip(b.row(row)).map(|(a, b)| a + f64::from(VALUE) * b).collect();
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn multiplied(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (a, b, found) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.mat(bench, units)?);
    let launch = multiply(a.mat, b.mat, false, found);
    let expected = move |row| a.row(row).into_iter().zip(b.row(row)).map(|(a, b)| a * b).collect();
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn repeated(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (vector, found) = (bench.random(1, units, Element::F32, 1.0)?, layer.mat(bench, units)?);
    let launch = broadcast(vector.mat, found);
    Ok(Made { launch, found, expected: Box::new(move |_| vector.row(0)) })
}

fn filled(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let found = layer.mat(bench, units)?;
    let expected = move |_| vec![f64::from(VALUE); units as usize];
    Ok(Made { launch: fill(VALUE, found), found, expected: Box::new(expected) })
}

fn named(layer: Layer, classes: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (ids, stream): (u64, Stream) = bench.ids(layer.rows.into(), classes)?;
    let found = layer.mat(bench, classes)?;
    let expected = move |row: u32| {
        let id = stream.id(row.into(), classes);
        (0..classes).map(|class| f64::from(u32::from(class == id))).collect()
    };
    Ok(Made { launch: one_hot(ids, found), found, expected: Box::new(expected) })
}

/// A weight of a layer, or one for each scenario.
#[derive(Clone, Copy)]
struct Weight {
    outputs: u32,
    inputs: u32,
}

impl Weight {
    /// A case that reads or writes so many bytes for each value of a weight.
    fn case(
        self,
        kernel: &'static str,
        many: (&'static str, u32),
        bytes: u32,
        prepare: fn(Weight, &mut Workbench) -> Result<Prepared, DeviceError>,
    ) -> Case {
        let sizes = [many, ("inputs", self.inputs), ("outputs", self.outputs)];
        let bytes = f64::from(bytes) * f64::from(self.len());
        Case::once(kernel, &sizes, bytes, move |bench| prepare(self, bench))
    }

    fn len(self) -> u32 {
        self.outputs * self.inputs
    }

    /// `count` of them, each a row.
    fn random(self, bench: &mut Workbench, count: u32) -> Result<Random, DeviceError> {
        bench.random_contiguous(count, self.len(), Element::F32, 1.0)
    }

    fn mat(self, bench: &mut Workbench, count: u32) -> Result<DeviceMat, DeviceError> {
        bench.mat_with(count, self.len(), self.len(), Element::F32)
    }

    /// A shared one times those of scenarios.
    fn fold(self) -> Case {
        self.case("fold", ("scenarios", SCENARIOS), 4 * (1 + 2 * SCENARIOS), |of, bench| {
            let (shared, own) = (of.random(bench, 1)?, of.random(bench, SCENARIOS)?);
            let to = of.mat(bench, SCENARIOS)?;
            let launch =
                fold(shared.mat.address, own.mat.address, true, None, SCENARIOS, of.len(), to.address);
            Prepared::new(vec![launch], move |bench| {
                of.compare(bench, to, &|s, i| f64::from(shared.at(0, i)) * f64::from(own.at(s, i)))
            })
        })
    }

    fn fold_dx(self) -> Case {
        self.case("fold_dx", ("scenarios", SCENARIOS), 4 * (2 + 3 * SCENARIOS), |of, bench| {
            let (shared, own) = (of.random(bench, 1)?, of.random(bench, SCENARIOS)?);
            let dy = of.random(bench, SCENARIOS)?;
            let (d_shared, d_own) = (of.mat(bench, 1)?, of.mat(bench, SCENARIOS)?);
            let [to_shared, to_own] = [d_shared, d_own].map(|to| Some((to.address, false)));
            let [from_shared, from_own, at] = [shared, own, dy].map(|values| values.mat.address);
            let launch =
                fold_dx(from_shared, from_own, at, true, None, SCENARIOS, of.len(), to_shared, to_own);
            Prepared::new(vec![launch], move |bench| {
                let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
                let of_shared = of.compare(bench, d_shared, &|_, i| {
                    (0..SCENARIOS).map(|s| product(dy.at(s, i), own.at(s, i))).sum()
                })?;
                let of_own = of.compare(bench, d_own, &|s, i| product(dy.at(s, i), shared.at(0, i)))?;
                Ok(of_shared.max(of_own))
            })
        })
    }

    /// Compares some values of each.
    fn compare(
        self,
        bench: &Workbench,
        found: DeviceMat,
        expected: &dyn Fn(u32, u32) -> f64,
    ) -> Result<f64, DeviceError> {
        let mut error = Error::default();
        for row in 0..found.rows {
            let values = bench.row(found, row)?;
            for i in sample(self.len(), COMPARED) {
                error.add(values[i as usize], expected(row, i));
            }
        }
        Ok(error.relative())
    }

    fn transpose(self) -> Case {
        self.case("transpose", ("matrices", MATRICES), 8 * MATRICES, |of, bench| {
            let Weight { outputs, inputs } = of;
            let x = bench.random_contiguous(MATRICES * outputs, inputs, Element::F32, 1.0)?;
            let y = bench.mat_with(MATRICES * inputs, outputs, outputs, Element::F32)?;
            let from =
                Matrices { first: DeviceMat { rows: outputs, ..x.mat }, count: MATRICES, next: of.len() };
            let to = Matrices { first: DeviceMat { rows: inputs, ..y }, ..from };
            Prepared::new(vec![transpose(from, false, to)], move |bench| {
                compare_rows(bench, y, &|row| {
                    let (first, input) = (row / inputs * outputs, row % inputs);
                    (first..first + outputs).map(|output| x.at(output, input).into()).collect()
                })
            })
        })
    }

    fn to_bf16(self) -> Case {
        let case = self.case("to_bf16", ("matrices", 1), 6, |of, bench| {
            let from = bench.random_contiguous(of.outputs, of.inputs, Element::F32, 1.0)?;
            let to = bench.mat_with(of.outputs, of.inputs, of.inputs, Element::Bf16)?;
            let casts = Casts::new(&[(from.mat, to)]);
            let launch = to_bf16(&casts, bench.upload(casts.bytes())?);
            Prepared::new(vec![launch], move |bench| compare_rows(bench, to, &|row| from.row(row)))
        });
        Case { precision: Precision::Bf16, tolerance: tolerance(Precision::Bf16), ..case }
    }
}
