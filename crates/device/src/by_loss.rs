//! Steps in which several losses have gradients of their own: a run for each, then one move by what weights make of them.

use manygate_core::Result;
use manygate_cuda::Launch;
use manygate_cuda::loss_gradients::{
    FlatGradients, FlatPieces, LossRows, combine_gradients, combine_rows, gradient_products, pairs,
    row_products, sum_products,
};
use manygate_cuda::optim::Piece;
use manygate_graph::Plan;
use std::ops::Range;

/// Which losses have gradients of their own, and where these are multiplied and weighed.
#[derive(Clone, Debug, Default)]
pub struct ByLoss {
    /// By run: the factor of each part of the loss.
    pub seeds: Vec<Vec<f32>>,
    /// Runs whose gradients are multiplied with each other: the first ones.
    pub losses: usize,
    /// Ranges of the parameters that learn, and whether several losses share them.
    pub pieces: Vec<(Range<usize>, bool)>,
    /// By table: whether several losses share it.
    pub shared_tables: Vec<bool>,
    /// Ranges of the parameters that products go over.
    pub measured: Vec<Range<usize>>,
    /// By table: whether they go over its rows.
    pub measured_tables: Vec<bool>,
}

/// The weight of each run's gradients: where losses share parameters, and elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct LossWeights<'a> {
    /// Of those that several losses share.
    pub shared: &'a [f64],
    /// Of those that belong to one loss.
    pub own: &'a [f64],
}

impl LossWeights<'_> {
    /// As they lie in device memory: by group, which is 1 of what is shared.
    pub(crate) fn to_bytes(self) -> impl Iterator<Item = [u8; 8]> {
        self.own.iter().chain(self.shared).map(|weight| weight.to_le_bytes())
    }
}

/// Gradients of the parameters by run, laid out as the parameters.
pub(crate) fn flat_gradients(plan: &Plan, address: u64) -> FlatGradients {
    FlatGradients { address, stride: (plan.layout().len() as u64).next_multiple_of(4) }
}

/// Puts bytes into device memory, and gives their address.
pub(crate) type Upload<'a> = dyn FnMut(&[u8]) -> Result<u64> + 'a;

/// Puts pieces there.
pub(crate) fn upload_pieces(pieces: &[Piece], upload: &mut Upload<'_>) -> Result<FlatPieces> {
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_bytes()).collect();
    Ok(FlatPieces { address: upload(&bytes)?, count: pieces.len() as u32 })
}

/// And a number for each table.
pub(crate) fn upload_kinds(kinds: &[bool], upload: &mut Upload<'_>) -> Result<u64> {
    let bytes: Vec<u8> = kinds.iter().flat_map(|&kind| u32::from(kind).to_le_bytes()).collect();
    upload(&bytes)
}

impl ByLoss {
    pub(crate) fn runs(&self) -> usize {
        self.seeds.len()
    }

    /// Products that a step tells.
    pub(crate) fn products(&self) -> usize {
        pairs(self.losses as u32) as usize
    }

    fn measured_pieces(&self) -> Vec<Piece> {
        let ranges = self.measured.iter().map(|range| range.start as u64..range.end as u64);
        ranges.flat_map(|range| Piece::cut(range, 0)).collect()
    }

    /// Parts of a product: one for each piece, and for each of `blocks` of rows.
    fn parts(&self, blocks: u32) -> usize {
        self.measured_pieces().len() + if self.measured_tables.contains(&true) { blocks as usize } else { 0 }
    }

    /// Bytes of scratch.
    pub(crate) fn scratch(&self, blocks: u32) -> u64 {
        8 * (self.products() * self.parts(blocks)) as u64
    }

    /// The launches that multiply the gradients of all runs; `rows` are those of tables, if any are looked up.
    pub(crate) fn multiply(
        &self,
        gradients: FlatGradients,
        rows: Option<LossRows<'_>>,
        scratch: u64,
        products: u64,
        upload: &mut Upload<'_>,
    ) -> Result<Vec<Launch>> {
        let losses = self.losses as u32;
        let pieces = upload_pieces(&self.measured_pieces(), upload)?;
        let rows = rows.filter(|_| self.measured_tables.contains(&true));
        let parts = pieces.count + rows.map_or(0, |rows| rows.blocks());
        let mut launches = vec![gradient_products(pieces, losses, gradients, parts, scratch)];
        if let Some(rows) = rows {
            let rows = LossRows { kinds: upload_kinds(&self.measured_tables, upload)?, ..rows };
            launches.push(row_products(rows, losses, parts, scratch + 8 * u64::from(pieces.count)));
        }
        launches.push(sum_products(losses, scratch, parts, products));
        Ok(launches)
    }

    /// The launches that weigh them, by the weights at `weights`, and leave one gradient: that of the parameters at `to`, and
    /// that of rows where the matrix of one run more is.
    pub(crate) fn combine(
        &self,
        gradients: FlatGradients,
        rows: Option<LossRows<'_>>,
        weights: u64,
        to: u64,
        upload: &mut Upload<'_>,
    ) -> Result<Vec<Launch>> {
        let runs = self.runs() as u32;
        let cut = |(range, is_shared): &(Range<usize>, bool)| {
            Piece::cut(range.start as u64..range.end as u64, u32::from(*is_shared))
        };
        let pieces: Vec<Piece> = self.pieces.iter().flat_map(cut).collect();
        let pieces = upload_pieces(&pieces, upload)?;
        let mut launches = vec![combine_gradients(pieces, weights, runs, gradients, to)];
        if let Some(rows) = rows {
            let rows = LossRows { kinds: upload_kinds(&self.shared_tables, upload)?, ..rows };
            launches.push(combine_rows(rows, weights, runs, rows.of_loss(runs).sums.sums));
        }
        Ok(launches)
    }
}
