//! A batch in device memory: one block that the host fills and copies over as a whole.

use crate::draws::Draws;
use crate::plan::Plan;
use crate::shape::{Shape, Space};
use manygate_core::{Bag, Batch, Error, Result};
use manygate_cuda::gemm_by_scenario::scenario_starts;

/// How large a batch a recording is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Capacity {
    /// Most rows.
    pub rows: usize,
    /// By list: most ids.
    pub ids: Vec<usize>,
}

impl Capacity {
    /// The largest batch of at most `rows` rows out of `data`, whose columns are the same: with the longest lists.
    pub fn of(data: &[&Batch], rows: usize) -> Capacity {
        let longest = |bag: &Bag| bag.offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
        let lists = data.first().map_or(0, |batch| batch.bags.len());
        let ids = |b: usize| {
            rows * data.iter().filter_map(|batch| batch.bags.get(b)).map(longest).max().unwrap_or(0)
        };
        Capacity { rows, ids: (0..lists).map(ids).collect() }
    }

    /// The bucket that `batch` falls in: powers of two, at most `self`.
    pub fn bucket(&self, batch: &Batch) -> Capacity {
        let bucket = |count: usize, most: usize| count.max(1).next_power_of_two().min(most);
        let ids = self.ids.iter().zip(&batch.bags).map(|(&most, bag)| bucket(bag.ids.len(), most));
        Capacity { rows: bucket(batch.rows, self.rows), ids: ids.collect() }
    }

    /// Most rows of a value of this shape.
    pub fn rows_in(&self, shape: Shape) -> usize {
        match shape.space {
            Space::Position(bag) => self.ids[bag],
            Space::Batch => self.rows,
            Space::Once => shape.rows,
        }
    }

    /// Rows of a value with a row a sample, or an id of a list.
    pub fn rows_of(&self, bag: Option<usize>) -> usize {
        bag.map_or(self.rows, |bag| self.ids[bag])
    }
}

/// A list of ids in device memory.
#[derive(Clone, Copy, Debug)]
pub struct DeviceBag {
    /// Address of the offsets, u32 `[rows + 1]`.
    pub offsets: u64,
    /// Address of the ids, u32.
    pub ids: u64,
    /// Of the first id and the one behind the last, u32 `[2]`.
    pub id_range: u64,
    /// Address of their number, a u32.
    pub count: u64,
}

/// Addresses of the columns of a batch, and of what depends on it.
#[derive(Clone, Debug, Default)]
pub struct DeviceBatch {
    /// Of the first row and the one behind the last, u32 `[2]`.
    pub row_range: u64,
    /// Of the number of rows, a u32.
    pub rows: u64,
    /// By categorical field: of its ids, u32 `[rows]`.
    pub ids: Vec<u64>,
    /// By list.
    pub bags: Vec<DeviceBag>,
    /// Of the scenarios, u32 `[rows]`.
    pub scenario: u64,
    /// Of what [`scenario_starts`] makes of the numbers of rows of the scenarios, whether or not they stand in this order.
    pub scenario_starts: u64,
    /// For a plan that [reads rows by scenario](Plan::orders_rows): of the caller's row of each row, u32 `[rows]`.
    pub caller_rows: u64,
    /// Of the numbers, f32 `[rows, width]`.
    pub dense: u64,
    /// By task: of its labels, f32 `[rows]`.
    pub labels: Vec<u64>,
    /// Of the factor of a row's gradient, an f32 for each loss part and group of its rows.
    pub scales: u64,
    /// Of what the sum of losses is divided by, an f64 for each loss part and group of its rows.
    pub divisors: u64,
    /// By op that draws: its key and the address of that of the step's random numbers, u32 `[2]`.
    pub draws: Vec<(u64, u64)>,
}

/// Where the columns of a batch lie in its block, for the largest batch.
#[derive(Clone, Debug)]
pub struct BatchLayout {
    /// Offsets from the start of the block in place of addresses.
    offsets: DeviceBatch,
    capacity: Capacity,
    dense_width: usize,
    bytes: u64,
}

/// Distance between columns in bytes: what the widest load is aligned to, several times.
const ALIGN: u64 = 256;

impl BatchLayout {
    /// For batches of at most `capacity` that `plan` reads.
    pub fn new(plan: &Plan, capacity: &Capacity) -> BatchLayout {
        let mut bytes = 0;
        let mut place = |count: usize, size: u64| {
            let offset = bytes;
            bytes = (bytes + count as u64 * size).next_multiple_of(ALIGN);
            offset
        };
        let (reads, rows) = (&plan.reads, capacity.rows);
        let dense_width = reads.dense.unwrap_or(0);
        let row_range = place(2, 4);
        let offsets = DeviceBatch {
            row_range,
            rows: row_range + 4,
            ids: (0..reads.fields).map(|_| place(rows, 4)).collect(),
            bags: (0..reads.bags)
                .map(|b| {
                    let [offsets, ids] = [rows + 1, capacity.ids[b]].map(|count| place(count, 4));
                    let id_range = place(2, 4);
                    DeviceBag { offsets, ids, id_range, count: id_range + 4 }
                })
                .collect(),
            scenario: place(if reads.scenarios.is_some() { rows } else { 0 }, 4),
            scenario_starts: place(reads.scenarios.map_or(0, |scenarios| 2 * (scenarios + 1)), 4),
            caller_rows: place(if plan.orders_rows() { rows } else { 0 }, 4),
            dense: place(rows * dense_width, 4),
            labels: (0..reads.labels).map(|_| place(rows, 4)).collect(),
            scales: place(plan.loss_sums_len(), 4),
            divisors: place(plan.loss_sums_len(), 8),
            draws: plan.draws().into_iter().map(|key| (key, place(2, 4))).collect(),
        };
        BatchLayout { offsets, capacity: capacity.clone(), dense_width, bytes }
    }

    /// Bytes of the block.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The columns in a block at `address`.
    pub fn at(&self, address: u64) -> DeviceBatch {
        let moved = |offsets: &[u64]| offsets.iter().map(|offset| address + offset).collect();
        let DeviceBatch { row_range, rows, ids, bags, scenario, .. } = &self.offsets;
        let DeviceBatch { scenario_starts, caller_rows, dense, labels, scales, divisors, draws, .. } =
            &self.offsets;
        let bag = |bag: &DeviceBag| DeviceBag {
            offsets: address + bag.offsets,
            ids: address + bag.ids,
            id_range: address + bag.id_range,
            count: address + bag.count,
        };
        DeviceBatch {
            row_range: address + row_range,
            rows: address + rows,
            ids: moved(ids),
            bags: bags.iter().map(bag).collect(),
            scenario: address + scenario,
            scenario_starts: address + scenario_starts,
            caller_rows: address + caller_rows,
            dense: address + dense,
            labels: moved(labels),
            scales: address + scales,
            divisors: address + divisors,
            draws: draws.iter().map(|(key, offset)| (*key, address + offset)).collect(),
        }
    }

    /// Writes a batch that fits `plan` into the host's copy of the block, with the factor of each loss part in `seeds`.
    ///
    /// # Errors
    /// When the batch does not fit the plan or is larger than the layout.
    pub fn fill(
        &self,
        plan: &Plan,
        batch: &Batch,
        seeds: &[f32],
        draws: Draws<'_>,
        block: &mut [u8],
    ) -> Result<()> {
        plan.check_batch(batch)?;
        self.check_size(batch)?;
        let at = &self.offsets;
        write(block, at.row_range, [0, batch.rows as u32].map(u32::to_le_bytes));
        for (offset, ids) in at.ids.iter().zip(&batch.ids) {
            write(block, *offset, ids.iter().map(|id| id.to_le_bytes()));
        }
        for (to, bag) in at.bags.iter().zip(&batch.bags) {
            write(block, to.offsets, bag.offsets.iter().map(|offset| offset.to_le_bytes()));
            write(block, to.ids, bag.ids.iter().map(|id| id.to_le_bytes()));
            write(block, to.id_range, [0, bag.ids.len() as u32].map(u32::to_le_bytes));
        }
        if let Some(scenarios) = plan.reads.scenarios {
            write(block, at.scenario, batch.scenario.iter().map(|scenario| scenario.to_le_bytes()));
            let mut counts = vec![0; scenarios];
            batch.scenario.iter().for_each(|&scenario| counts[scenario as usize] += 1);
            write(block, at.scenario_starts, scenario_starts(&counts).into_iter().map(u32::to_le_bytes));
        }
        if plan.orders_rows() {
            let caller_rows = (0..batch.rows).map(|row| draws.caller_row(row) as u32);
            write(block, at.caller_rows, caller_rows.map(u32::to_le_bytes));
        }
        if self.dense_width > 0 {
            write(block, at.dense, batch.dense.iter().map(|v| v.to_le_bytes()));
        }
        for (offset, labels) in at.labels.iter().zip(&batch.labels) {
            write(block, *offset, labels.iter().map(|v| v.to_le_bytes()));
        }
        for (part, loss) in plan.losses().iter().enumerate() {
            let mut divisors = vec![0.0; loss.groups()];
            loss.find_divisors(batch, &mut divisors);
            let scale = |divisor: &f64| (seeds[part] * loss.weight / *divisor as f32).to_le_bytes();
            let start = plan.loss_sums[part].start as u64;
            write(block, at.scales + 4 * start, divisors.iter().map(scale));
            write(block, at.divisors + 8 * start, divisors.iter().map(|d| d.to_le_bytes()));
        }
        for (key, offset) in &at.draws {
            write(block, *offset, draws.stream(*key).key().map(u32::to_le_bytes));
        }
        Ok(())
    }

    fn check_size(&self, batch: &Batch) -> Result<()> {
        if batch.rows == 0 || batch.rows > self.capacity.rows {
            let message =
                format!("{} rows, the device's memory was made for 1 to {}", batch.rows, self.capacity.rows);
            return Err(Error::graph("run", message));
        }
        for (b, (bag, &most)) in batch.bags.iter().zip(&self.capacity.ids).enumerate() {
            if bag.ids.len() > most {
                let message =
                    format!("bag {b} has {} ids, the device's memory was made for {most}", bag.ids.len());
                return Err(Error::graph("run", message));
            }
        }
        Ok(())
    }
}

/// Writes values one behind the other from `offset` on.
fn write<const N: usize>(block: &mut [u8], offset: u64, values: impl IntoIterator<Item = [u8; N]>) {
    let to = block[offset as usize..].chunks_exact_mut(N);
    values.into_iter().zip(to).for_each(|(value, to)| to.copy_from_slice(&value));
}
