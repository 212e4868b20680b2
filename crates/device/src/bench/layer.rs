//! What cases of single layers have in common: rows of one batch, in f32 and in bf16.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::mmoe::tolerance;
use super::reference::{Error, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::{DeviceMat, Element, Launch, Precision};

/// Rows that are compared.
const COMPARED: u32 = 16;

/// Units of a layer, fields of a row, and the side of a matrix by sample.
pub(super) fn widths(size: Size) -> [u32; 3] {
    match size {
        Size::Full => [512, 26, 64],
        Size::Small => [20, 5, 6],
    }
}

/// What the cases have in common.
#[derive(Clone, Copy)]
pub(super) struct Layer {
    pub(super) rows: u32,
    pub(super) precision: Precision,
    pub(super) element: Element,
}

/// The launch of a case, what it writes, and what is to be found in a row of that.
pub(super) struct Made {
    pub(super) launch: Launch,
    pub(super) found: DeviceMat,
    pub(super) expected: Box<dyn Fn(u32) -> Vec<f64>>,
}

/// Makes a case of so many parts of so many columns.
pub(super) type Make = fn(Layer, u32, u32, &mut Workbench) -> Result<Made, DeviceError>;

impl Layer {
    /// Of values in f32, and in bf16.
    pub(super) fn both(rows: u32) -> [Layer; 2] {
        let elements = [(Precision::F32, Element::F32), (Precision::Bf16, Element::Bf16)];
        elements.map(|(precision, element)| Layer { rows, precision, element })
    }

    /// A case with `values` of a row read or written.
    pub(super) fn case(
        self,
        kernel: &'static str,
        values: u32,
        sizes: [(&'static str, u32); 2],
        make: Make,
    ) -> Case {
        self.prepared(kernel, values, sizes, move |layer, parts, width, bench| {
            let Made { launch, found, expected } = make(layer, parts, width, bench)?;
            Prepared::new(vec![launch], move |bench| compare_rows(bench, found, &*expected))
        })
    }

    /// The same of which something else is compared than rows of one matrix.
    pub(super) fn prepared(
        self,
        kernel: &'static str,
        values: u32,
        sizes: [(&'static str, u32); 2],
        prepare: impl Fn(Layer, u32, u32, &mut Workbench) -> Result<Prepared, DeviceError> + 'static,
    ) -> Case {
        let [(_, parts), (_, width)] = sizes;
        let mut shape = vec![("rows", self.rows)];
        shape.extend(sizes.into_iter().filter(|&(name, size)| (name, size) != ("width", 1)));
        let bytes = f64::from(self.rows) * f64::from(values) * self.element.bytes() as f64;
        Case {
            kernel,
            shape: Shape::new(&shape),
            precision: self.precision,
            work: Work { bytes, flops: 0.0 },
            tolerance: tolerance(self.precision),
            prepare: Box::new(move |bench| prepare(self, parts, width, bench)),
        }
    }

    pub(super) fn random(self, bench: &mut Workbench, cols: u32) -> Result<Random, DeviceError> {
        bench.random(self.rows, cols, self.element, 1.0)
    }

    pub(super) fn mat(self, bench: &mut Workbench, cols: u32) -> Result<DeviceMat, DeviceError> {
        bench.mat(self.rows, cols, self.element)
    }
}

/// Compares some rows of a matrix.
pub(super) fn compare_rows(
    bench: &Workbench,
    found: DeviceMat,
    expected: &dyn Fn(u32) -> Vec<f64>,
) -> Result<f64, DeviceError> {
    let mut error = Error::default();
    for row in sample(found.rows, COMPARED) {
        error.add_all(&bench.row(found, row)?, &expected(row));
    }
    Ok(error.relative())
}
