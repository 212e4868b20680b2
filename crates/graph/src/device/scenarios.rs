//! Rows of a matrix that has one for each scenario: each sample's, and the sums that go back.

use super::batch::Capacity;
use super::step::DeviceStep;
use manygate_cuda::embedding::{DeviceTable, Piece, Pieces, lookup};
use manygate_cuda::{DeviceMat, Precision, elementwise, gemm};

impl DeviceStep<'_> {
    /// Writes to `to` `[rows, n]` the row of each sample's scenario, of `matrix` `[scenarios, n]`.
    pub fn rows_of_scenarios(&mut self, matrix: DeviceMat, to: DeviceMat) {
        let DeviceMat { address, rows, cols, stride, .. } = matrix;
        let table = DeviceTable { address, rows, dim: cols, stride };
        let pieces = Pieces::new(&[Piece::Field { table, ids: self.batch().scenario }], to);
        let at = self.constant(&pieces.to_bytes());
        self.launch(lookup(&pieces, at, 0));
    }

    /// Writes to `to` `[ids, n]` the row of each id of list `bag`, scenario id − 1, of `matrix` `[scenarios, n]`, and zeros for
    /// an id that is none; works in [`listed_scenarios_scratch`] bytes at `scratch`. A product with a matrix of ones, as the
    /// sums are.
    pub fn rows_of_listed_scenarios(&mut self, bag: usize, matrix: DeviceMat, to: DeviceMat, scratch: u64) {
        let ones = self.ones_of_list(bag, matrix.rows, scratch);
        self.launch(gemm::linear_dx(Precision::F32, ones, matrix, false, None, to));
    }

    /// Writes to `to` `[scenarios, n]` the sum of the rows of `dy` `[ids, n]`, f32, of each scenario in list `bag`, or adds it;
    /// works in [`listed_scenarios_scratch`] bytes at `scratch`.
    pub fn sum_by_listed_scenario(
        &mut self,
        bag: usize,
        dy: DeviceMat,
        accumulate: bool,
        to: DeviceMat,
        scratch: u64,
    ) {
        let ones = self.ones_of_list(bag, to.rows, scratch);
        let partials = scratch + ones_bytes(self.capacity().ids[bag], to.rows as usize + 1);
        self.launch_all(gemm::linear_dw(Precision::F32, ones, dy, accumulate, to, None, partials));
    }

    /// A matrix `[ids, scenarios]` at `scratch`, with a one in the column before that of the id.
    fn ones_of_list(&mut self, bag: usize, scenarios: u32, scratch: u64) -> DeviceMat {
        let (list, most) = (self.batch().bags[bag], self.capacity().ids[bag] as u32);
        let ones = DeviceMat { live_rows: list.count, ..DeviceMat::new(scratch, most, scenarios + 1) };
        self.launch(elementwise::one_hot(list.ids, ones));
        ones.columns(1, scenarios)
    }

    /// Writes to `to` `[scenarios, n]` the sum of the rows of `dy` `[rows, n]`, f32, of each scenario, or adds it; works
    /// in [`scenario_sums_scratch`] bytes at `scratch`.
    ///
    /// The sum is a product, of dy and a matrix with a one in each row: scenarios are few, and its order is fixed.
    pub fn sum_by_scenario(&mut self, dy: DeviceMat, accumulate: bool, to: DeviceMat, scratch: u64) {
        let ones = DeviceMat { address: scratch, cols: to.rows, stride: to.rows, ..dy };
        let partials = scratch + ones_bytes(self.capacity().rows, to.rows as usize);
        self.launch(elementwise::one_hot(self.batch().scenario, ones));
        self.launch_all(gemm::linear_dw(Precision::F32, ones, dy, accumulate, to, None, partials));
    }
}

/// Bytes of scratch that [`DeviceStep::sum_by_scenario`] works in, for rows of `cols` values.
pub fn scenario_sums_scratch(capacity: &Capacity, scenarios: usize, cols: usize) -> u64 {
    let partials = gemm::linear_dw_scratch(capacity.rows as u32, cols as u32, scenarios as u32, 1);
    ones_bytes(capacity.rows, scenarios) + 4 * partials as u64
}

/// Bytes of scratch that the rows of scenarios of list `bag`, of `cols` values, and their sums need.
pub fn listed_scenarios_scratch(capacity: &Capacity, bag: usize, scenarios: usize, cols: usize) -> u64 {
    let ids = capacity.ids[bag];
    let partials = gemm::linear_dw_scratch(ids as u32, cols as u32, scenarios as u32, 1);
    ones_bytes(ids, scenarios + 1) + 4 * partials as u64
}

/// Bytes of the matrix of ones, a multiple of 256.
fn ones_bytes(rows: usize, scenarios: usize) -> u64 {
    (4 * (rows * scenarios) as u64).next_multiple_of(256)
}
