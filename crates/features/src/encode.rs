//! Encoding: rows of text to columns of a batch.

use manygate_core::{Bag, Batch, Error};

use crate::label::label;
use crate::recipe::{Layout, Recipe, TableRows, has};
use crate::schema::Schema;
use crate::text::shown;
use crate::vocabulary::{Vocabulary, pieces};

/// A cell that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}`: {message}")]
pub struct CellError {
    /// The column.
    pub column: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl CellError {
    pub(crate) fn new(column: &str, message: impl Into<String>) -> Self {
        CellError { column: column.to_owned(), message: message.into() }
    }

    /// The same error with its place: `file` and, where it has lines, the line from 1.
    pub fn at(self, file: impl AsRef<std::path::Path>, line: Option<u64>) -> Error {
        Error::data(file, line, Some(&self.column), self.message)
    }
}

/// Turns rows of text into columns of a [`Batch`]: a schema, its vocabularies and its statistics.
///
/// Columns of a batch are in the order of the schema: `ids` by `schema.fields`, `bags` by `schema.bags`, `dense` by
/// `schema.dense`, `labels` by `schema.tasks`.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    pub(crate) schema: Schema,
    pub(crate) recipe: Recipe,
    pub(crate) vocabularies: Vec<Vocabulary>,
    layout: Layout,
    unknown_scenario: Option<u32>,
}

impl Encoder {
    /// Puts an encoder together.
    ///
    /// # Errors
    /// The first contradiction between the parts.
    pub(crate) fn new(
        schema: Schema,
        recipe: Recipe,
        vocabularies: Vec<Vocabulary>,
    ) -> Result<Encoder, String> {
        schema.check()?;
        let layout = Layout::new(&schema, &recipe)?;
        let lengths = [
            ("separators", recipe.separators.len(), schema.bags.len()),
            ("numbers", recipe.dense.len(), schema.dense.len()),
            ("label columns", recipe.labels.len(), schema.tasks.len()),
            ("lists of positive labels", recipe.positive.len(), schema.tasks.len()),
            ("table rows", recipe.rows.len(), schema.tables.len()),
            ("vocabularies", vocabularies.len(), schema.tables.len()),
        ];
        if let Some((what, got, want)) = lengths.into_iter().find(|(_, got, want)| got != want) {
            return Err(format!("there are {got} {what}, {want} are needed"));
        }
        for (input, name) in recipe.dense.iter().zip(&schema.dense) {
            let statistics = input.mean.is_finite() && input.std.is_finite() && input.std > 0.0;
            if !statistics || input.name() != *name {
                return Err(format!("the statistics of the number `{name}` cannot be used"));
            }
        }
        for (table, vocabulary) in schema.tables.iter().zip(&vocabularies) {
            vocabulary.check().map_err(|message| format!("table `{}`: {message}", table.name))?;
            if table.rows != vocabulary.rows() {
                let rows = vocabulary.rows();
                return Err(format!("table `{}` has {} rows, its vocabulary {rows}", table.name, table.rows));
            }
        }
        let unknown_scenario = match &recipe.unknown_scenario {
            None => None,
            Some(name) => {
                Some(scenario_number(&schema, name).ok_or(format!("there is no scenario `{name}`"))?)
            }
        };
        Ok(Encoder { schema, recipe, vocabularies, layout, unknown_scenario })
    }

    /// How the table `name` finds rows, and its vocabulary.
    pub(crate) fn table(&self, name: &str) -> Option<(&TableRows, &Vocabulary)> {
        let table = self.schema.table_index(name)?;
        Some((&self.recipe.rows[table], &self.vocabularies[table]))
    }

    /// What models need to know.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The input columns of a row, scenario included, each once.
    pub fn columns(&self) -> &[String] {
        &self.layout.columns
    }

    /// The label column of each task.
    pub fn label_columns(&self) -> &[String] {
        &self.recipe.labels
    }

    /// The row of `value` in table number `table`: 0 when it is unknown.
    ///
    /// # Errors
    /// What is wrong with the value, where the table holds integer ids; or that there is no such table.
    pub fn table_row(&self, table: usize, value: &str) -> Result<u32, String> {
        let vocabulary = self.vocabularies.get(table);
        vocabulary.ok_or_else(|| format!("there is no table number {table}"))?.row(value)
    }

    /// A batch without rows that has the columns of the schema (label columns if `labels`) and room for `rows` rows.
    pub fn empty_batch(&self, rows: usize, labels: bool) -> Batch {
        let scenario = if self.layout.scenario.is_some() { rows } else { 0 };
        let column = || Vec::with_capacity(rows);
        let bag = || {
            let mut offsets = Vec::with_capacity(rows + 1);
            offsets.push(0);
            Bag { offsets, ids: Vec::new() }
        };
        Batch {
            rows: 0,
            ids: self.schema.fields.iter().map(|_| column()).collect(),
            bags: self.schema.bags.iter().map(|_| bag()).collect(),
            dense: Vec::with_capacity(rows * self.schema.dense.len()),
            dense_width: self.schema.dense.len(),
            scenario: Vec::with_capacity(scenario),
            labels: if labels {
                self.schema.tasks.iter().map(|_| Vec::with_capacity(rows)).collect()
            } else {
                vec![]
            },
        }
    }

    /// Appends a row to `batch`, which comes from [`empty_batch`](Encoder::empty_batch): `cells[i]` is the value of
    /// `columns()[i]`. Labels are appended apart, by [`encode_labels`](Encoder::encode_labels).
    ///
    /// Nothing is allocated once the batch has been as large ([`Batch::clear`] keeps its memory).
    ///
    /// # Errors
    /// The first cell that cannot be used, the first column that has none, or that the batch has other columns; the batch
    /// is then as it was.
    pub fn encode(&self, cells: &[&str], batch: &mut Batch) -> Result<(), CellError> {
        let rows = batch.rows;
        self.check_row(cells, batch)?;
        self.append(cells, batch).inspect_err(|_| batch.truncate(rows))
    }

    fn check_row(&self, cells: &[&str], batch: &Batch) -> Result<(), CellError> {
        if let Some(column) = self.columns().get(cells.len()) {
            let (has, needs) = (cells.len(), self.columns().len());
            return Err(CellError::new(column, format!("the row has {has} cells, {needs} are needed")));
        }
        let columns = (batch.ids.len(), batch.bags.len(), batch.dense_width);
        if columns != (self.schema.fields.len(), self.schema.bags.len(), self.schema.dense.len()) {
            let column = self.columns().first().map_or("", String::as_str);
            return Err(CellError::new(column, "the batch is one of another schema: take `empty_batch`"));
        }
        Ok(())
    }

    fn append(&self, cells: &[&str], batch: &mut Batch) -> Result<(), CellError> {
        let scenario = self.layout.scenario.map(|cell| self.scenario(cells[cell])).transpose()?;
        let name = scenario.and_then(|number| self.schema.scenarios.get(number as usize)).map(String::as_str);
        for ((source, field), ids) in self.layout.fields.iter().zip(&self.schema.fields).zip(&mut batch.ids) {
            let row = self.vocabularies[source.table].row(cells[source.cell]);
            ids.push(row.map_err(|message| CellError::new(&field.name, message))?);
        }
        for (list, bag) in batch.bags.iter_mut().enumerate() {
            if has(self.recipe.scenarios_of_list(list), name) {
                self.encode_list(list, cells, bag)?;
            } else {
                bag.offsets.push(bag.offsets.last().copied().unwrap_or(0));
            }
        }
        for (input, &cell) in self.recipe.dense.iter().zip(&self.layout.dense) {
            let read = || input.read(cells[cell]).map_err(|message| CellError::new(&input.column, message));
            let number = if has(&input.only_in, name) { read()? } else { None };
            batch.dense.push(input.standardise(number));
        }
        batch.scenario.extend(scenario);
        batch.rows += 1;
        Ok(())
    }

    /// Appends the labels of the row that was encoded last: `cells[i]` is the value of `label_columns()[i]`.
    ///
    /// # Errors
    /// The first label that is none of its task's kind, or is empty where texts stand for them.
    pub fn encode_labels(&self, cells: &[&str], batch: &mut Batch) -> Result<(), CellError> {
        let sources = self.recipe.labels.iter().zip(&self.recipe.positive).zip(&self.schema.tasks);
        for ((((column, positive), task), cell), labels) in sources.zip(cells).zip(&mut batch.labels) {
            let label = label(task.kind, positive, cell, &task.name);
            labels.push(label.map_err(|message| CellError::new(column, message))?);
        }
        Ok(())
    }

    fn encode_list(&self, list: usize, cells: &[&str], bag: &mut Bag) -> Result<(), CellError> {
        let (source, field) = (self.layout.lists[list], &self.schema.bags[list]);
        let vocabulary = &self.vocabularies[source.table];
        let (start, keeps_unknown) = (bag.ids.len(), self.layout.keeps_unknown[list]);
        for value in pieces(cells[source.cell], &self.recipe.separators[list]) {
            match vocabulary.row(value).map_err(|message| CellError::new(&field.name, message))? {
                0 if !keeps_unknown => {}
                row => bag.ids.push(row),
            }
        }
        // Unknown values that do not stay are gone by now: a sequence keeps its last ones.
        let surplus = (bag.ids.len() - start).saturating_sub(field.max_length.unwrap_or(usize::MAX));
        bag.ids.drain(start..start + surplus);
        let end = u32::try_from(bag.ids.len());
        bag.offsets.push(end.map_err(|_| {
            CellError::new(&field.name, "all rows together hold more than 4294967295 values: split the file")
        })?);
        Ok(())
    }

    fn scenario(&self, cell: &str) -> Result<u32, CellError> {
        scenario_number(&self.schema, cell).or(self.unknown_scenario).ok_or_else(|| {
            let column = self.schema.scenario_column.as_deref().unwrap_or_default();
            let known: Vec<String> = self.schema.scenarios.iter().take(10).map(|name| shown(name)).collect();
            let more = if self.schema.scenarios.len() > known.len() { ", ..." } else { "" };
            CellError::new(
                column,
                format!(
                    "no fit row has the scenario {}, only {}{more}: correct the file, or set `data.unknown_scenario` \
                     to the scenario that stands in for unseen ones",
                    shown(cell),
                    known.join(", ")
                ),
            )
        })
    }
}

/// The number of a scenario. They are few, so that a search in order is as fast as a map.
fn scenario_number(schema: &Schema, name: &str) -> Option<u32> {
    schema.scenarios.iter().position(|scenario| scenario == name).map(|number| number as u32)
}
