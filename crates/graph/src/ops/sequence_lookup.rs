//! The rows of a table for every id of a list: `[ids of the list, dim]`, the samples' ids one after the other.
//!
//! Backward: no dense gradient of the table exists. The gradient of the output is kept for the whole batch, one row an
//! id, and the sparse update reads it as (id, gradient row) pairs.

use crate::check::{Case, LONGEST};
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::graph::{Graph, Value};
use crate::op::{Backward, Forward, Lookup, LookupSource, Matrix, Op, Reads, Saved};
use crate::param::{Init, TableSpec};
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_cuda::embedding as cuda;
use manygate_kernels::embedding;

/// Looks up the ids of a list, see the [module](self). No inputs.
#[derive(Clone, Debug)]
pub struct SequenceLookup {
    bag: usize,
    lookups: [Lookup; 1],
}

impl SequenceLookup {
    /// The ids of list `bag`, a [sequence](Graph::sequence) of the graph, in a table of this width.
    pub fn new(bag: usize, table: usize, dim: usize) -> SequenceLookup {
        let lookup = Lookup { table, source: LookupSource::Positions(bag), column: 0, dim, scenario: None };
        SequenceLookup { bag, lookups: [lookup] }
    }
}

impl Op for SequenceLookup {
    fn name(&self) -> &'static str {
        "sequence_lookup"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if !inputs.is_empty() {
            return Err("it reads the batch and takes no inputs".into());
        }
        Ok(Shape::position(self.bag, self.lookups[0].dim))
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reads(&self) -> Reads {
        Reads { bags: self.bag + 1, ..Reads::default() }
    }

    fn keeps_output_gradient(&self) -> bool {
        true
    }

    fn lookups(&self) -> &[Lookup] {
        &self.lookups
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let at = tile.at;
        let ids = &at.batch.bags[self.bag].ids[at.positions(self.bag)];
        embedding::gather(at.isa, at.tables.rows(self.lookups[0].table), ids, tile.take_output());
    }

    fn backward(&self, _tile: &mut Backward<'_>) {}

    fn reference(&self, _inputs: &[Matrix], tables: &[Matrix], batch: &Batch) -> Matrix {
        let (table, ids) = (&tables[self.lookups[0].table], &batch.bags[self.bag].ids);
        let row = |&id: &u32| (0..table.cols).map(move |c| table.at(id as usize, c));
        Matrix { rows: ids.len(), cols: table.cols, data: ids.iter().flat_map(row).collect() }
    }
}

impl DeviceOp for SequenceLookup {
    fn halves(&self) -> Halves {
        Halves { inputs: 0, output: true }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (table, ids) = (step.table(self.lookups[0].table), step.batch().bags[self.bag].ids);
        step.launch(cuda::gather(table, ids, step.output()));
    }

    fn backward(&self, _step: &mut DeviceStep<'_>) {}
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, bag: usize, rows: usize, dim: usize| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let table = g.table(TableSpec { name: "table".into(), rows, dim, init: Init::Constant(0.0) })?;
            g.sequence(bag, LONGEST)?;
            g.add("op", SequenceLookup::new(bag, table, dim), x)
        };
        Case::new(name, declare)
    };
    vec![case("sequence_lookup/one", 0, 3, 1), case("sequence_lookup/wide", 1, 9, 17)]
}
