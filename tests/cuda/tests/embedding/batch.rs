//! Batches of look-ups on both sides, and what the CPU makes of them.

use crate::{Numbers, Table, rounded};
use manygate_cuda::embedding::{
    Ids, RowSums, Source, SparseGradients, SparseMemory, coalesce, make_keys, number_lookups, step_to_bytes,
    update_rows, update_rows_by_sums,
};
use manygate_cuda::{DeviceMat, Element};
use manygate_cuda_tests::Gpu;
use manygate_kernels::embedding::{self as cpu, GradientSources, RowOptimizer, TableMut};
use manygate_kernels::{Isa, Mat, MatMut};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Field,
    Bag,
    Positions,
}

/// Look-ups of a table on the host.
pub(super) struct Lists {
    pub(super) table: usize,
    pub(super) kind: Kind,
    /// Of all rows of the batch.
    pub(super) offsets: Vec<u32>,
    pub(super) ids: Vec<u32>,
    /// The rows that are looked up here.
    pub(super) rows: std::ops::Range<usize>,
    /// `[gradient rows, dim]`, what the device has as `element`.
    pub(super) gradient: Vec<f32>,
    pub(super) element: Element,
}

impl Lists {
    pub(super) fn gradient_rows(&self) -> usize {
        if self.kind == Kind::Positions { self.ids.len() } else { self.offsets.len() - 1 }
    }

    /// The look-ups: id and gradient row.
    pub(super) fn lookups(&self) -> Vec<(u32, usize)> {
        let of_row = |row: usize| self.offsets[row] as usize..self.offsets[row + 1] as usize;
        let at = self.rows.clone().flat_map(|row| of_row(row).map(move |at| (row, at)));
        at.map(|(row, at)| (self.ids[at], if self.kind == Kind::Positions { at } else { row })).collect()
    }
}

/// Tables and a batch of look-ups on both sides.
pub(super) struct Batch {
    pub(super) gpu: Gpu,
    pub(super) tables: Vec<Table>,
    pub(super) lists: Vec<Lists>,
    pub(super) gradients: SparseGradients,
    pub(super) memory: SparseMemory,
}

impl Batch {
    /// The look-ups `lists` of `rows` rows, of which `room` more look-ups might have been.
    pub(super) fn new(mut gpu: Gpu, tables: Vec<Table>, lists: Vec<Lists>, pad: u32, room: u32) -> Batch {
        let rows = lists.iter().map(|l| l.offsets.len() as u32 - 1).max().unwrap_or(0);
        let lookups: usize = lists.iter().map(|l| l.lookups().len()).sum();
        let mut sources = Vec::new();
        for list in &lists {
            let dim = tables[list.table].dim;
            let (ids, offsets) = (gpu.upload(&list.ids), gpu.upload(&list.offsets));
            let ids = match list.kind {
                Kind::Field => Ids::Field { ids },
                Kind::Bag => Ids::Bag { offsets, ids },
                Kind::Positions => Ids::Positions { offsets, ids },
            };
            let rows = gpu.upload(&[list.rows.start as u32, list.rows.end as u32]);
            let gradient = upload_gradient(&mut gpu, list, dim, pad);
            sources.push(Source { table: list.table, ids, rows, gradient });
        }
        let of_device: Vec<_> = tables.iter().map(|t| t.device).collect();
        let gradients = SparseGradients::new(&of_device, &sources, rows + 3, lookups as u32 + room);
        let descriptions = gpu.upload(&gradients.to_bytes());
        let scratch = gpu.allocate::<u8>(gradients.scratch() as usize);
        Batch { gpu, tables, lists, gradients, memory: SparseMemory { descriptions, scratch } }
    }

    /// Sorts the look-ups.
    pub(super) fn sort(&mut self) {
        self.gpu.launch(&number_lookups(None, &self.gradients, self.memory));
        self.gpu.launch(&make_keys(&self.gradients, self.memory));
        for launch in self.gradients.sort_lookups(self.memory) {
            self.gpu.launch(&launch);
        }
    }

    /// Sums the gradients of all distinct rows on the device.
    pub(super) fn coalesce(&mut self) -> RowSums {
        let most = self.gradients.max_lookups() as usize;
        let width = self.gradients.width() as usize;
        let sums = RowSums {
            keys: self.gpu.allocate::<u32>(most),
            sums: self.gpu.upload(&vec![0.0f32; most * width]),
            distinct: self.gpu.allocate::<u32>(1),
        };
        for launch in coalesce(&self.gradients, self.memory, sums) {
            self.gpu.launch(&launch);
        }
        sums
    }

    /// Keys and sums of all distinct rows.
    pub(super) fn coalesced(&mut self) -> (Vec<u32>, Vec<f32>) {
        let RowSums { keys, sums, distinct } = self.coalesce();
        let width = self.gradients.width() as usize;
        let distinct = self.gpu.download::<u32>(distinct, 1)[0] as usize;
        (self.gpu.download(keys, distinct), self.gpu.download(sums, distinct * width))
    }

    /// Moves all tables, each by its optimiser.
    pub(super) fn update(&mut self, optimizers: &[Option<RowOptimizer>]) {
        let steps: Vec<u8> = optimizers.iter().flat_map(|o| step_to_bytes(o.as_ref())).collect();
        let steps = self.gpu.upload(&steps);
        for launch in update_rows(&self.gradients, self.memory, steps) {
            self.gpu.launch(&launch);
        }
    }

    /// The same by gradients that are summed first.
    pub(super) fn update_by_sums(&mut self, optimizers: &[Option<RowOptimizer>]) {
        let steps: Vec<u8> = optimizers.iter().flat_map(|o| step_to_bytes(o.as_ref())).collect();
        let (steps, sums) = (self.gpu.upload(&steps), self.coalesce());
        let descriptions = self.gpu.upload(&self.gradients.sums_to_bytes(sums.sums));
        self.gpu.launch(&update_rows_by_sums(&self.gradients, self.memory, sums, descriptions, steps));
    }

    pub(super) fn table(&mut self, t: usize) -> Vec<f32> {
        self.gpu.download(self.tables[t].device.address, self.tables[t].data.len())
    }

    /// The sorted keys of table `t` on the CPU, and the width of a row in their positions.
    pub(super) fn cpu_keys(&self, t: usize) -> (Vec<u64>, u32) {
        let row_bits = 20;
        let mut keys = Vec::new();
        for (s, list) in self.lists.iter().filter(|l| l.table == t).enumerate() {
            let key = |(id, row): (u32, usize)| u64::from(id) << 32 | (s as u64) << row_bits | row as u64;
            keys.extend(list.lookups().into_iter().map(key));
        }
        let mut spare = vec![0; keys.len()];
        cpu::sort_lookups(&mut keys, &mut spare, self.tables[t].rows);
        (keys, row_bits)
    }

    pub(super) fn with_sources<T>(&self, t: usize, then: impl FnOnce(&[u64], GradientSources<'_>) -> T) -> T {
        let (keys, row_bits) = self.cpu_keys(t);
        let dim = self.tables[t].dim as usize;
        let own = self.lists.iter().filter(|l| l.table == t);
        let sources: Vec<_> = own.map(|l| Mat::new(&l.gradient, l.gradient_rows(), dim)).collect();
        then(&keys, GradientSources::new(&sources, row_bits))
    }

    /// Keys and sums of all distinct rows on the CPU.
    pub(super) fn expected_sums(&self) -> (Vec<u32>, Vec<f32>) {
        let (mut keys_out, mut sums_out) = (Vec::new(), Vec::new());
        for t in 0..self.tables.len() {
            self.with_sources(t, |keys, sources| {
                let dim = self.tables[t].dim as usize;
                let mut ids = vec![0; keys.len()];
                let mut sums = vec![0.0; keys.len() * dim];
                let to = MatMut::new(&mut sums, keys.len(), dim);
                let count = cpu::coalesce(Isa::Scalar, keys, sources, dim, &mut ids, to);
                for i in 0..count {
                    keys_out.push(self.gradients.first_key(t) + ids[i]);
                    sums_out.extend(&sums[i * dim..][..dim]);
                    sums_out.resize(keys_out.len() * self.gradients.width() as usize, 0.0);
                }
            });
        }
        (keys_out, sums_out)
    }

    /// The table after an update on the CPU.
    pub(super) fn expected_table(
        &self,
        t: usize,
        before: &[f32],
        optimizer: Option<&RowOptimizer>,
    ) -> Vec<f32> {
        let mut data = before.to_vec();
        let Some(optimizer) = optimizer else { return data };
        let [rows, dim, stride] =
            [self.tables[t].rows, self.tables[t].dim, self.tables[t].stride].map(|n| n as usize);
        self.with_sources(t, |keys, sources| {
            let table = TableMut::new(&mut data, rows, dim, stride);
            cpu::update_rows(Isa::Scalar, keys, sources, table, optimizer, true);
        });
        data
    }
}

/// The gradients of `list` in the middle of a matrix, `pad` columns before and behind.
pub(super) fn upload_gradient(gpu: &mut Gpu, list: &Lists, dim: u32, pad: u32) -> DeviceMat {
    let (rows, stride) = (list.gradient_rows(), dim + 2 * pad);
    let mut wide = vec![9.0f32; rows * stride as usize];
    for r in 0..rows {
        let from = &list.gradient[r * dim as usize..][..dim as usize];
        wide[r * stride as usize + pad as usize..][..dim as usize].copy_from_slice(from);
    }
    let element = list.element;
    let address = match element {
        Element::F32 => gpu.upload(&wide),
        Element::Bf16 => gpu.upload(&wide.iter().map(|x| (x.to_bits() >> 16) as u16).collect::<Vec<_>>()),
    };
    let mat = DeviceMat { address, live_rows: 0, rows: rows as u32, cols: stride, stride, element };
    mat.columns(pad, dim)
}

/// A list of random ids for `rows` rows.
pub(super) fn random_lists(
    numbers: &mut Numbers,
    table: usize,
    kind: Kind,
    of: &Table,
    rows: usize,
    element: Element,
) -> Lists {
    let offsets = if kind == Kind::Field { (0..=rows as u32).collect() } else { numbers.offsets(rows, 5) };
    let ids = numbers.ids(offsets[rows] as usize, of.rows);
    // Rows of one scenario of several, or all.
    let first = numbers.below(3).min(rows as u32) as usize;
    let end = rows - (numbers.below(3) as usize).min(rows - first);
    let mut lists = Lists { table, kind, offsets, ids, rows: first..end, gradient: Vec::new(), element };
    let values = numbers.values(lists.gradient_rows() * of.dim as usize);
    lists.gradient =
        if element == Element::Bf16 { values.into_iter().map(rounded).collect() } else { values };
    lists
}
