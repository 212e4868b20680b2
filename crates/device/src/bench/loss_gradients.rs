//! Gradients of several losses: their inner products and their sums with weights, and clipped gradients of rows.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::reference::{Error, dot, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::embedding::{DeviceTable, RowSums, SparseGradients, SparseMemory};
use manygate_cuda::loss_gradients::{
    FlatGradients, FlatPieces, LossRows, clip_rows, combine_gradients, combine_rows, gradient_products,
    pairs, row_products, sum_products,
};
use manygate_cuda::optim::{Clipping, Piece};
use manygate_cuda::{DeviceMat, Element, Precision};

/// Losses, and the weight of each.
const LOSSES: u32 = 3;
const WEIGHTS: [f64; LOSSES as usize] = [0.5, 1.0, -2.0];
/// Limit of clipped values.
const LIMIT: f32 = 0.5;
/// Rows that are compared.
const COMPARED: u32 = 200;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let (parameters, rows, dim) = match size {
        Size::Full => (1 << 22, 1 << 18, 64),
        Size::Small => (1500, 60, 8),
    };
    let (flat, of_rows) = (Gradients { rows: 1, width: parameters }, Gradients { rows, width: dim });
    let losses = f64::from(LOSSES);
    vec![
        flat.case("gradient_products", "parameters", losses, Gradients::multiply),
        flat.case("combine_gradients", "parameters", losses + 1.0, Gradients::combine),
        of_rows.case("row_products", "dim", losses, Gradients::multiply_rows),
        of_rows.case("combine_rows", "dim", losses + 1.0, Gradients::combine_rows),
        of_rows.case("clip_rows", "dim", 2.0, Gradients::clip_rows),
    ]
}

/// Gradients of a loss: a vector, or rows of a table. Those of all losses lie one behind the other.
#[derive(Clone, Copy)]
struct Gradients {
    rows: u32,
    width: u32,
}

impl Gradients {
    /// A case that reads and writes the gradients of `passes` losses.
    fn case(
        self,
        kernel: &'static str,
        width: &'static str,
        passes: f64,
        prepare: fn(Gradients, &mut Workbench) -> Result<Prepared, DeviceError>,
    ) -> Case {
        let sizes = [("losses", LOSSES), ("rows", self.rows), (width, self.width)];
        let bytes = 4.0 * passes * f64::from(self.rows) * f64::from(self.width);
        Case {
            kernel,
            shape: Shape::new(&sizes),
            precision: Precision::F32,
            work: Work { bytes, flops: 0.0 },
            tolerance: 1e-6,
            prepare: Box::new(move |bench| prepare(self, bench)),
        }
    }

    fn of_losses(self, bench: &mut Workbench) -> Result<Random, DeviceError> {
        bench.random_contiguous(LOSSES * self.rows, self.width, Element::F32, 1.0)
    }

    /// A vector in pieces.
    fn flat(self, values: Random, bench: &mut Workbench) -> Result<(FlatPieces, FlatGradients), DeviceError> {
        let pieces: Vec<u8> = Piece::cut(0..self.width.into(), 0).flat_map(Piece::to_bytes).collect();
        let count = (pieces.len() / Piece::BYTES) as u32;
        let gradients = FlatGradients { address: values.mat.address, stride: self.width.into() };
        Ok((FlatPieces { address: bench.upload(&pieces)?, count }, gradients))
    }

    /// All rows of a table but the unknown one.
    fn table(self, values: Random, bench: &mut Workbench) -> Result<Table, DeviceError> {
        let table = DeviceTable { address: 0, rows: self.rows + 1, dim: self.width, stride: self.width };
        let gradients = SparseGradients::new(&[table], &[], 0, self.rows);
        let sums = RowSums {
            keys: bench.upload_u32(1..=self.rows)?,
            sums: values.mat.address,
            distinct: bench.upload_u32([self.rows])?,
        };
        let memory = SparseMemory { descriptions: bench.upload(&gradients.to_bytes())?, scratch: 0 };
        Ok(Table { gradients, sums, memory, kinds: [bench.upload_u32([0])?, bench.upload_u32([1])?] })
    }

    fn multiply(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let values = self.of_losses(bench)?;
        let (pieces, gradients) = self.flat(values, bench)?;
        let partials = bench.allocate(8 * u64::from(pairs(LOSSES) * pieces.count))?;
        let products = bench.allocate(8 * u64::from(pairs(LOSSES)))?;
        let launches = vec![
            gradient_products(pieces, LOSSES, gradients, pieces.count, partials),
            sum_products(LOSSES, partials, pieces.count, products),
        ];
        Prepared::new(launches, move |bench| self.compare_products(values, products, bench))
    }

    fn multiply_rows(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let values = self.of_losses(bench)?;
        let table = self.table(values, bench)?;
        let parts = table.rows(1).blocks();
        let partials = bench.allocate(8 * u64::from(pairs(LOSSES) * parts))?;
        let products = bench.allocate(8 * u64::from(pairs(LOSSES)))?;
        let launches = vec![
            row_products(table.rows(1), LOSSES, parts, partials),
            sum_products(LOSSES, partials, parts, products),
        ];
        Prepared::new(launches, move |bench| self.compare_products(values, products, bench))
    }

    fn compare_products(self, values: Random, products: u64, bench: &Workbench) -> Result<f64, DeviceError> {
        let found: Vec<f64> = bench.download(products, pairs(LOSSES) as usize)?;
        let mut expected = vec![0.0; found.len()];
        for row in 0..self.rows {
            let of_loss: Vec<Vec<f64>> = (0..LOSSES).map(|loss| values.row(loss * self.rows + row)).collect();
            let both = (0..of_loss.len()).flat_map(|a| (0..=a).map(move |b| (a, b)));
            expected.iter_mut().zip(both).for_each(|(sum, (a, b))| *sum += dot(&of_loss[a], &of_loss[b]));
        }
        let mut error = Error::default();
        error.add_all(&found, &expected);
        Ok(error.relative())
    }

    fn combine(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let (values, to) = (self.of_losses(bench)?, self.to(bench)?);
        let (pieces, gradients) = self.flat(values, bench)?;
        let launch = combine_gradients(pieces, weights(bench)?, LOSSES, gradients, to.address);
        Prepared::new(vec![launch], move |bench| self.compare_sums(values, to, bench))
    }

    fn combine_rows(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let (values, to) = (self.of_losses(bench)?, self.to(bench)?);
        let table = self.table(values, bench)?;
        let launch = combine_rows(table.rows(0), weights(bench)?, LOSSES, to.address);
        Prepared::new(vec![launch], move |bench| self.compare_sums(values, to, bench))
    }

    fn compare_sums(self, values: Random, to: DeviceMat, bench: &Workbench) -> Result<f64, DeviceError> {
        let mut error = Error::default();
        for row in sample(self.rows, COMPARED) {
            let mut expected = vec![0.0; self.width as usize];
            for (loss, weight) in (0..LOSSES).zip(WEIGHTS) {
                let values = values.row(loss * self.rows + row);
                expected.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
            error.add_all(&bench.row(to, row)?, &expected);
        }
        Ok(error.relative())
    }

    fn clip_rows(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let values = bench.random_contiguous(self.rows, self.width, Element::F32, 1.0)?;
        let (table, go_on) = (self.table(values, bench)?, bench.upload_u32([1])?);
        let clipping = Clipping { factor: None, limit: LIMIT };
        let launch = clip_rows(go_on, table.rows(1), clipping, bench.allocate(4)?);
        Prepared::new(vec![launch], move |bench| {
            let (mut error, limit) = (Error::default(), f64::from(LIMIT));
            for row in sample(self.rows, COMPARED) {
                let expected: Vec<f64> = values.row(row).iter().map(|g| g.clamp(-limit, limit)).collect();
                error.add_all(&bench.row(values.mat, row)?, &expected);
            }
            Ok(error.relative())
        })
    }

    /// Where sums go: one loss.
    fn to(self, bench: &mut Workbench) -> Result<DeviceMat, DeviceError> {
        bench.mat_with(self.rows, self.width, self.width, Element::F32)
    }
}

fn weights(bench: &mut Workbench) -> Result<u64, DeviceError> {
    bench.upload(&WEIGHTS.iter().flat_map(|weight| weight.to_le_bytes()).collect::<Vec<u8>>())
}

/// A table whose rows have gradients.
struct Table {
    gradients: SparseGradients,
    sums: RowSums,
    memory: SparseMemory,
    /// Addresses of either kind of a table.
    kinds: [u64; 2],
}

impl Table {
    fn rows(&self, kind: usize) -> LossRows<'_> {
        let Table { gradients, sums, memory, kinds } = self;
        LossRows { gradients, memory: *memory, sums: *sums, kinds: kinds[kind] }
    }
}
