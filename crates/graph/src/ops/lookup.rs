//! The trunk of a model: rows of tables, pooled bags and numbers, side by side.
//!
//! Output `[batch, Σ widths]`: the row of each categorical field, the sum or mean of the rows of each bag (zero for an
//! empty one), the numbers as they are, in the order of the pieces.
//!
//! By scenario, a row looks its ids up in the tables of its scenario: the same pieces for each, from other tables.
//!
//! Backward: no dense gradient of a table exists. The gradient of the output is kept for the whole batch, that of a
//! mean divided by the bag's length, and the sparse update reads its columns as (id, gradient row) pairs.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::graph::{Graph, Value};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Lookup, LookupSource, Matrix, Op, Reads, Rowset, Saved};
use crate::param::{Init, TableSpec};
use crate::shape::Shape;
use manygate_core::{Bag, Batch};
use manygate_cuda::{DeviceMat, embedding as cuda};
use manygate_kernels::embedding::{self, Pooling};
use std::mem::discriminant;

/// A part of the trunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Piece {
    /// Row `ids[field]` of a table.
    Field {
        /// Index in [`Batch::ids`].
        field: usize,
        /// Index of the table.
        table: usize,
        /// Width of the table.
        dim: usize,
    },
    /// The rows of `bags[bag]`, pooled.
    Bag {
        /// Index in [`Batch::bags`].
        bag: usize,
        /// Index of the table.
        table: usize,
        /// Width of the table.
        dim: usize,
        /// How rows become one.
        pooling: Pooling,
    },
    /// All numbers of the batch.
    Dense {
        /// How many there are a row.
        width: usize,
    },
}

impl Piece {
    /// Columns of the trunk that it fills.
    pub fn width(&self) -> usize {
        match *self {
            Piece::Field { dim, .. } | Piece::Bag { dim, .. } => dim,
            Piece::Dense { width } => width,
        }
    }
}

/// Looks up every piece of the trunk, see the [module](self). No inputs.
#[derive(Clone, Debug)]
pub struct LookupTrunk {
    /// One list, or one for each scenario.
    pieces: Vec<Vec<Piece>>,
    lookups: Vec<Lookup>,
}

impl LookupTrunk {
    /// A trunk of `pieces`.
    pub fn new(pieces: Vec<Piece>) -> LookupTrunk {
        let lookups = lookups(&pieces, None);
        LookupTrunk { pieces: vec![pieces], lookups }
    }

    /// A trunk for each scenario: pieces of the same widths.
    pub fn by_scenario(pieces: Vec<Vec<Piece>>) -> LookupTrunk {
        let own = pieces.iter().enumerate();
        let lookups = own.flat_map(|(scenario, pieces)| lookups(pieces, Some(scenario))).collect();
        LookupTrunk { pieces, lookups }
    }

    fn chooses(&self) -> bool {
        self.lookups.iter().any(|lookup| lookup.scenario.is_some())
    }

    /// The pieces of a tile.
    fn pieces(&self, at: &Rowset<'_>) -> &[Piece] {
        &self.pieces[if self.chooses() { at.scenario() } else { 0 }]
    }
}

fn lookups(pieces: &[Piece], scenario: Option<usize>) -> Vec<Lookup> {
    let mut column = 0;
    let mut lookups = Vec::new();
    for piece in pieces {
        let source = match *piece {
            Piece::Field { field, table, dim } => Some((LookupSource::Field(field), table, dim)),
            Piece::Bag { bag, table, dim, .. } => Some((LookupSource::Bag(bag), table, dim)),
            Piece::Dense { .. } => None,
        };
        if let Some((source, table, dim)) = source {
            lookups.push(Lookup { table, source, column, dim, scenario });
        }
        column += piece.width();
    }
    lookups
}

/// Offsets of a tile's rows.
fn tile_offsets(bag: &Bag, first_row: usize, rows: usize) -> &[u32] {
    &bag.offsets[first_row..=first_row + rows]
}

impl Op for LookupTrunk {
    fn name(&self) -> &'static str {
        "lookup"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if !inputs.is_empty() {
            return Err("it reads the batch and takes no inputs".into());
        }
        let widths = |pieces: &[Piece]| pieces.iter().map(Piece::width).collect::<Vec<_>>();
        match self.pieces.split_first() {
            None => Err("there is no scenario".into()),
            Some((one, others)) if others.iter().any(|other| widths(other) != widths(one)) => {
                Err("the pieces of all scenarios need the same widths".into())
            }
            Some((one, _)) => Ok(Shape::batch(widths(one).iter().sum())),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reads(&self) -> Reads {
        let scenarios = self.chooses().then_some(self.pieces.len());
        let mut reads = Reads { scenarios, by_scenario: self.chooses(), ..Reads::default() };
        for piece in self.pieces.iter().flatten() {
            match *piece {
                Piece::Field { field, .. } => reads.fields = reads.fields.max(field + 1),
                Piece::Bag { bag, .. } => reads.bags = reads.bags.max(bag + 1),
                Piece::Dense { width } => reads.dense = Some(width),
            }
        }
        reads
    }

    fn keeps_output_gradient(&self) -> bool {
        // Without tables nobody asks for it: who wants the gradient of numbers taps them.
        !self.lookups.is_empty()
    }

    fn lookups(&self) -> &[Lookup] {
        &self.lookups
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, _inputs: &[Shape], growth: &mut Growth<'_>) {
        let added = growth.added();
        let mut column = 0;
        for piece in &self.pieces[0] {
            let new = |c: usize| match *piece {
                Piece::Field { field, .. } => added.fields.get(field).copied(),
                Piece::Bag { bag, .. } => added.bags.get(bag).copied(),
                Piece::Dense { .. } => added.dense.get(c).copied(),
            };
            for c in 0..piece.width() {
                growth.mark(Axis::OutColumns, column + c, Some(new(c).unwrap_or(false)));
            }
            column += piece.width();
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let at = tile.at;
        let mut output = tile.take_output();
        let mut column = 0;
        for piece in self.pieces(&at) {
            let mut to = output.columns(column, piece.width());
            match *piece {
                Piece::Field { field, table, .. } => {
                    embedding::gather(at.isa, at.tables.rows(table), &at.batch.ids[field][at.range()], to);
                }
                Piece::Bag { bag, table, pooling, .. } => {
                    let bag = &at.batch.bags[bag];
                    let offsets = tile_offsets(bag, at.first_row, at.rows);
                    embedding::gather_bag(at.isa, at.tables.rows(table), offsets, &bag.ids, pooling, to);
                }
                Piece::Dense { width } => {
                    for r in 0..at.rows {
                        let start = (at.first_row + r) * width;
                        to.row_mut(r).copy_from_slice(&at.batch.dense[start..start + width]);
                    }
                }
            }
            column += piece.width();
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let at = tile.at;
        let mut gradient = tile.take_output_gradient();
        let mut column = 0;
        for piece in self.pieces(&at) {
            if let Piece::Bag { bag, dim, pooling, .. } = *piece {
                let offsets = tile_offsets(&at.batch.bags[bag], at.first_row, at.rows);
                embedding::scale_bag_gradient(at.isa, offsets, pooling, gradient.columns(column, dim));
            }
            column += piece.width();
        }
    }

    fn reference(&self, _inputs: &[Matrix], tables: &[Matrix], batch: &Batch) -> Matrix {
        let width = self.pieces[0].iter().map(Piece::width).sum();
        let mut out = Matrix::zeros(batch.rows, width);
        for r in 0..batch.rows {
            let mut row = Vec::with_capacity(width);
            for piece in &self.pieces[if self.chooses() { batch.scenario[r] as usize } else { 0 }] {
                match *piece {
                    Piece::Field { field, table, dim } => {
                        let id = batch.ids[field][r] as usize;
                        row.extend((0..dim).map(|c| tables[table].at(id, c)));
                    }
                    Piece::Bag { bag, table, dim, pooling } => {
                        let ids = batch.bags[bag].row(r);
                        let scale = if pooling == Pooling::Mean { ids.len().max(1) as f64 } else { 1.0 };
                        row.extend((0..dim).map(|c| {
                            ids.iter().map(|&id| tables[table].at(id as usize, c)).sum::<f64>() / scale
                        }));
                    }
                    Piece::Dense { width } => {
                        row.extend(batch.dense[r * width..(r + 1) * width].iter().map(|&v| f64::from(v)));
                    }
                }
            }
            for (c, v) in row.into_iter().enumerate() {
                out.set(r, c, v);
            }
        }
        out
    }
}

impl DeviceOp for LookupTrunk {
    fn halves(&self) -> Halves {
        Halves { inputs: 0, output: true }
    }

    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        let kind = |piece: &Piece| match piece {
            Piece::Bag { pooling, .. } => (discriminant(piece), Some(*pooling)),
            Piece::Field { .. } | Piece::Dense { .. } => (discriminant(piece), None),
        };
        let alike = self.pieces.iter().all(|own| own.iter().map(kind).eq(self.pieces[0].iter().map(kind)));
        (!alike).then(|| "the inputs of scenarios differ in kind, which its kernels do not take".into())
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let pieces = self.pieces_on_device(step, step.output());
        let at = step.constant(&pieces.to_bytes());
        step.launch(cuda::lookup(&pieces, at, self.scenarios(step)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let means = self.pieces_on_device(step, step.output_gradient()).means(step.output_gradient());
        let at = step.constant(&means.to_bytes());
        step.launch(cuda::scale_bag_gradient(&means, at, self.scenarios(step)));
    }
}

impl LookupTrunk {
    /// Address of the scenario of each row, where pieces are chosen by it.
    fn scenarios(&self, step: &DeviceStep<'_>) -> u64 {
        if self.pieces.len() > 1 { step.batch().scenario } else { 0 }
    }

    fn pieces_on_device(&self, step: &DeviceStep<'_>, out: DeviceMat) -> cuda::Pieces {
        let batch = step.batch();
        let piece = |piece: &Piece| match *piece {
            Piece::Field { field, table, .. } => {
                cuda::Piece::Field { table: step.table(table), ids: batch.ids[field] }
            }
            Piece::Bag { bag, table, pooling, .. } => cuda::Piece::Bag {
                table: step.table(table),
                offsets: batch.bags[bag].offsets,
                ids: batch.bags[bag].ids,
                pooling,
            },
            Piece::Dense { width } => cuda::Piece::Dense(cuda::DeviceTable {
                address: batch.dense,
                rows: step.capacity().rows as u32,
                dim: width as u32,
                stride: width as u32,
            }),
        };
        let own = |pieces: &Vec<Piece>| pieces.iter().map(piece).collect::<Vec<_>>();
        let scenarios: Vec<Vec<cuda::Piece>> = self.pieces.iter().map(own).collect();
        cuda::Pieces::by_scenario(&scenarios.iter().map(Vec::as_slice).collect::<Vec<_>>(), out)
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, tables: Vec<(usize, usize)>, op: LookupTrunk| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            for (i, &(rows, dim)) in tables.iter().enumerate() {
                g.table(TableSpec { name: format!("table.{i}"), rows, dim, init: Init::Constant(0.0) })?;
            }
            g.add("op", op.clone(), x)
        };
        Case::new(name, declare)
    };
    let field = |field, table, dim| Piece::Field { field, table, dim };
    let bag = |bag, table, dim, pooling| Piece::Bag { bag, table, dim, pooling };
    let shared = vec![
        field(0, 0, 17),
        bag(0, 0, 17, Pooling::Mean),
        field(1, 1, 3),
        Piece::Dense { width: 2 },
        bag(1, 1, 3, Pooling::Sum),
    ];
    let own = |s: usize| vec![field(0, s, 3), Piece::Dense { width: 1 }, bag(0, s, 3, Pooling::Mean)];
    vec![
        case("lookup/one_field", vec![(4, 1)], LookupTrunk::new(vec![field(0, 0, 1)])),
        case("lookup/shared_table", vec![(9, 17), (5, 3)], LookupTrunk::new(shared)),
        case("lookup/by_scenario", vec![(6, 3); 3], LookupTrunk::by_scenario((0..3).map(own).collect())),
    ]
}
