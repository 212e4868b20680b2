//! Whether parameters, tables, a batch and a workspace fit a plan. Checked before a run, so that no op meets a column
//! that is missing or an id without a row.

use crate::op::{LookupSource, Reads, TableSource};
use crate::param::{Parameters, TableSpec};
use crate::plan::Plan;
use crate::run::Input;
use crate::workspace::Workspace;
use manygate_core::{Batch, Error, Executor, Result};
use manygate_kernels::embedding::check_ids;

fn misfit<T>(message: String) -> Result<T> {
    Err(Error::graph("run", message))
}

impl Plan {
    pub(crate) fn check_fit(&self, exec: &dyn Executor, ws: &Workspace, input: &Input<'_>) -> Result<()> {
        self.check_workspace(exec, ws, input.batch.rows)?;
        self.check_weights(input.params, input.state, input.tables)?;
        let (seeds, parts) = (input.seeds.len(), self.graph.losses.len());
        if seeds != parts {
            return misfit(format!("{seeds} seeds for {parts} parts of the loss"));
        }
        let (named, rows) = (input.draws.caller_rows.len(), input.batch.rows);
        if named != 0 && named != rows {
            return misfit(format!("the caller's rows of {named} rows are told, the batch has {rows}"));
        }
        self.check_batch(input.batch)
    }

    /// Checks that an arranged batch has every column that the plan reads, and no id without a row.
    ///
    /// # Errors
    /// [`Error::Graph`] with the first column that does not fit.
    pub fn check_batch(&self, batch: &Batch) -> Result<()> {
        self.check_columns(batch)?;
        self.check_lookups(batch)
    }

    pub(crate) fn check_weights(
        &self,
        params: &Parameters,
        state: &Parameters,
        tables: &dyn TableSource,
    ) -> Result<()> {
        if !params.has_layout(&self.layout) || !state.has_layout(&self.state_layout) {
            return misfit("the parameters belong to another model".into());
        }
        let specs = &self.graph.tables;
        let fits = |(t, spec): (usize, &TableSpec)| {
            let rows = tables.rows(t);
            (rows.rows(), rows.dim()) == (spec.rows, spec.dim)
        };
        if tables.len() != specs.len() || !specs.iter().enumerate().all(fits) {
            return misfit("the tables belong to another model".into());
        }
        Ok(())
    }

    fn check_workspace(&self, exec: &dyn Executor, ws: &Workspace, rows: usize) -> Result<()> {
        if ws.plan != self.id {
            return misfit("the workspace was made for another plan".into());
        }
        if !ws.is_packed {
            return misfit("no weights were packed; call `Plan::pack` first".into());
        }
        if rows == 0 {
            return misfit("the batch has no rows".into());
        }
        if rows > ws.capacity {
            return misfit(format!("{rows} rows, the workspace was made for {}", ws.capacity));
        }
        let (threads, arenas) = (exec.threads(), ws.arenas.len());
        if threads > arenas {
            return misfit(format!("{threads} threads, the workspace was made for {arenas}"));
        }
        Ok(())
    }

    fn check_columns(&self, batch: &Batch) -> Result<()> {
        batch.validate()?;
        let Reads { fields, bags, dense, labels, scenarios, by_scenario } = self.reads;
        let columns = [
            ("id columns", batch.ids.len(), fields),
            ("bags", batch.bags.len(), bags),
            ("label columns", batch.labels.len(), labels),
        ];
        if let Some((what, has, needs)) = columns.into_iter().find(|(_, has, needs)| has < needs) {
            return misfit(format!("the batch has {has} {what}, the model reads {needs}"));
        }
        if let Some(width) = dense.filter(|&width| width != batch.dense_width) {
            let has = batch.dense_width;
            return misfit(format!("the batch has {has} numbers a row, the model reads {width}"));
        }
        for &(b, longest) in &self.graph.sequences {
            let Some(offsets) = batch.bags.get(b).map(|bag| &bag.offsets) else { continue };
            if let Some(row) = offsets.windows(2).position(|w| (w[1] - w[0]) as usize > longest) {
                let has = offsets[row + 1] - offsets[row];
                return misfit(format!(
                    "bag {b} has {has} ids in row {row}, the model reads at most {longest}"
                ));
            }
        }
        let Some(scenarios) = scenarios else { return Ok(()) };
        if batch.scenario.len() != batch.rows {
            return misfit(format!("the batch names no scenarios, the model reads {scenarios}"));
        }
        if let Some(row) = batch.scenario.iter().position(|&s| s as usize >= scenarios) {
            let scenario = batch.scenario[row];
            return misfit(format!("row {row} is of scenario {scenario}, the model has {scenarios}"));
        }
        if by_scenario && !batch.scenario.is_sorted() {
            return misfit("the rows are not in the order of their scenarios; see `RowOrder`".into());
        }
        Ok(())
    }

    fn check_lookups(&self, batch: &Batch) -> Result<()> {
        for lookup in &self.lookups {
            let table = &self.graph.tables[lookup.table];
            let (ids, kind, index) = match lookup.source {
                LookupSource::Field(f) => (&batch.ids[f], "id column", f),
                LookupSource::Bag(b) | LookupSource::Positions(b) => (&batch.bags[b].ids, "bag", b),
            };
            let ids = match (lookup.scenario, lookup.source) {
                (Some(scenario), LookupSource::Field(_)) => &ids[batch.rows_of_scenario(scenario)],
                _ => ids,
            };
            if let Err(position) = check_ids(ids, table.rows) {
                return misfit(format!(
                    "{kind} {index} has id {} at position {position}, `{}` has {} rows",
                    ids[position], table.name, table.rows
                ));
            }
        }
        Ok(())
    }

    /// # Panics
    /// When the workspace was made for another plan.
    pub(crate) fn assert_made_for(&self, ws: &Workspace) {
        assert!(ws.plan == self.id, "the workspace was made for another plan");
    }
}
