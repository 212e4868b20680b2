//! From arrays to batches, with every value checked.

use manygate_core::{Bag, Batch, Error, Result};
use manygate_features::Schema;
use ndarray::{ArrayView2, Axis};
use std::fmt::Display;
use std::ops::Range;

/// The id of what a model does not know: it gets the unknown row of its table, and is left out of lists.
pub const UNKNOWN: u32 = u32::MAX;

/// A [`Batch`] in the making, column by column, in any order. Ids are those of the schema, from 0 up: id `i` is row
/// `i + 1` of its table, and [`UNKNOWN`] is row 0. (Where a model was trained from files, the number of a value in its
/// vocabulary is [`Encoder::table_row`](crate::Encoder::table_row) minus one.)
///
/// ```
/// use manygate::ndarray::array;
/// use manygate::{Columns, Schema, UNKNOWN};
///
/// let schema = Schema::default()
///     .field("user", 100)
///     .field("item", 50)
///     .sequence("history", "item", 3)
///     .number("age")
///     .task("click");
/// let batch = Columns::new(&schema)
///     .ids(array![[7_u32, 0], [UNKNOWN, 49]].view())? // [rows, fields]
///     .lists("history", &[vec![3_u32, 4], vec![]])?
///     .numbers(array![[0.5], [-1.0]].view())? // [rows, numbers]
///     .labels(array![[1.0], [0.0]].view())? // [rows, tasks]; left out to predict
///     .finish()?;
/// assert_eq!((batch.rows, &batch.ids[0][..]), (2, &[8, 0][..]));
///
/// let error = Columns::new(&schema).ids(array![[7_u64, 50]].view()).unwrap_err();
/// assert_eq!(error.to_string(), "ids of `item`: row 0 has 50, which is not an id from 0 to 49");
/// # Ok::<(), manygate::Error>(())
/// ```
#[derive(Debug)]
pub struct Columns<'s> {
    schema: &'s Schema,
    batch: Batch,
    /// Set by the first column.
    rows: Option<usize>,
    given: Given,
}

/// Columns that have been given.
#[derive(Debug, Default)]
struct Given {
    ids: bool,
    lists: Vec<bool>,
    numbers: bool,
    scenario: bool,
    labels: bool,
}

impl<'s> Columns<'s> {
    /// Columns for a batch of this schema.
    pub fn new(schema: &'s Schema) -> Columns<'s> {
        Columns::refill(schema, Batch::default())
    }

    /// The same in the memory of a batch that is not needed any more.
    pub fn refill(schema: &'s Schema, mut batch: Batch) -> Columns<'s> {
        batch.clear();
        batch.ids.resize_with(schema.fields.len(), Vec::new);
        batch.bags.resize_with(schema.bags.len(), Bag::default);
        batch.labels.resize_with(schema.tasks.len(), Vec::new);
        batch.dense_width = schema.dense.len();
        let given = Given { lists: vec![false; schema.bags.len()], ..Given::default() };
        Columns { schema, batch, rows: None, given }
    }

    /// The ids of all fields, `[rows, fields]`, in the order of the schema.
    ///
    /// # Errors
    /// With field, row and value of the first id that is none, or the shape that is needed.
    pub fn ids<I: Copy + Into<u64>>(mut self, ids: ArrayView2<'_, I>) -> Result<Columns<'s>> {
        let schema = self.schema;
        self.expect("ids", ids.nrows(), ids.ncols(), schema.fields.len())?;
        for ((field, from), to) in schema.fields.iter().zip(ids.axis_iter(Axis(1))).zip(&mut self.batch.ids) {
            to.clear();
            for (row, &id) in from.iter().enumerate() {
                to.push(table_row(id.into(), field.rows).map_err(|m| wrong_in(row, "ids", &field.name, m))?);
            }
        }
        self.given.ids = true;
        Ok(self)
    }

    /// The ids of a bag or sequence: row `r` has `ids[offsets[r] .. offsets[r + 1]]`. As from files, unknown ids are left
    /// out, and of a sequence the last ones that it may have are kept.
    ///
    /// # Errors
    /// When there is no such list, offsets do not rise from 0 to the number of ids, or with row and value of the first id
    /// that is none.
    pub fn list<I: Copy + Into<u64>>(self, name: &str, offsets: &[usize], ids: &[I]) -> Result<Columns<'s>> {
        let rises = offsets.is_sorted() && offsets.first() == Some(&0) && offsets.last() == Some(&ids.len());
        if !rises {
            let message = format!("its offsets do not rise from 0 to {}, the number of its ids", ids.len());
            return Err(Error::graph(format!("list `{name}`"), message));
        }
        let rows = offsets.windows(2).map(|w| w[0]..w[1]);
        self.fill(name, rows.map(|Range { start, end }| &ids[start..end]))
    }

    /// The same with a list for each row.
    ///
    /// # Errors
    /// As [`Columns::list`].
    pub fn lists<I: Copy + Into<u64>, L: AsRef<[I]>>(self, name: &str, lists: &[L]) -> Result<Columns<'s>> {
        self.fill(name, lists.iter().map(AsRef::as_ref))
    }

    fn fill<'a, I: Copy + Into<u64> + 'a>(
        mut self,
        name: &str,
        rows: impl ExactSizeIterator<Item = &'a [I]>,
    ) -> Result<Columns<'s>> {
        let Some(index) = self.schema.bags.iter().position(|bag| bag.name == name) else {
            let names: Vec<&str> = self.schema.bags.iter().map(|bag| bag.name.as_str()).collect();
            let message = format!("the schema has no such list; it has: {}", names.join(", "));
            return Err(Error::graph(format!("list `{name}`"), message));
        };
        self.expect(&format!("list `{name}`"), rows.len(), 1, 1)?;
        let spec = &self.schema.bags[index];
        let of_table = self.schema.table_index(&spec.table).map(|table| self.schema.tables[table].rows);
        let of_table = of_table.ok_or_else(|| {
            Error::graph(format!("list `{name}`"), format!("there is no table `{}`", spec.table))
        })?;
        let bag = &mut self.batch.bags[index];
        bag.ids.clear();
        bag.offsets.clear();
        bag.offsets.push(0);
        for (row, ids) in rows.enumerate() {
            let start = bag.ids.len();
            for &id in ids {
                match table_row(id.into(), of_table).map_err(|m| wrong_in(row, "list", name, m))? {
                    0 => {}
                    known => bag.ids.push(known),
                }
            }
            let surplus = (bag.ids.len() - start).saturating_sub(spec.max_length.unwrap_or(usize::MAX));
            bag.ids.drain(start..start + surplus);
            let end = u32::try_from(bag.ids.len());
            bag.offsets
                .push(end.map_err(|_| wrong_in(row, "list", name, "more than 4294967295 ids".into()))?);
        }
        self.given.lists[index] = true;
        Ok(self)
    }

    /// The numbers, `[rows, numbers]`, in the order of the schema. They are taken as they are: a model learns best from
    /// numbers with mean 0 and deviation 1.
    ///
    /// # Errors
    /// With column, row and value of the first that is not finite, or the shape that is needed.
    pub fn numbers(mut self, numbers: ArrayView2<'_, f32>) -> Result<Columns<'s>> {
        self.expect("numbers", numbers.nrows(), numbers.ncols(), self.schema.dense.len())?;
        self.batch.dense.clear();
        for ((row, column), &number) in numbers.indexed_iter() {
            if !number.is_finite() {
                let message = format!("{number}, which is not a finite number");
                return Err(wrong_in(row, "numbers", &self.schema.dense[column], message));
            }
            self.batch.dense.push(number);
        }
        self.given.numbers = true;
        Ok(self)
    }

    /// The scenario of each row, from 0 in the order of the schema.
    ///
    /// # Errors
    /// With row and value of the first that is none.
    pub fn scenario(mut self, scenario: &[u32]) -> Result<Columns<'s>> {
        self.expect("scenario", scenario.len(), 1, 1)?;
        check_scenarios(self.schema, scenario)?;
        self.batch.scenario.clear();
        self.batch.scenario.extend_from_slice(scenario);
        self.given.scenario = true;
        Ok(self)
    }

    /// The labels, `[rows, tasks]`, in the order of the schema.
    ///
    /// # Errors
    /// With task, row and value of the first that is none, or the shape that is needed.
    pub fn labels(mut self, labels: ArrayView2<'_, f32>) -> Result<Columns<'s>> {
        self.expect("labels", labels.nrows(), labels.ncols(), self.schema.tasks.len())?;
        let tasks = self.schema.tasks.iter().zip(labels.axis_iter(Axis(1)));
        for ((task, from), to) in tasks.zip(&mut self.batch.labels) {
            to.clear();
            to.extend(from);
            if let Some((row, message)) = wrong_label(task, to) {
                return Err(wrong_in(row, "labels", &task.name, message));
            }
        }
        self.given.labels = true;
        Ok(self)
    }

    /// The batch.
    ///
    /// # Errors
    /// When a column of the schema was not given; labels may be missing.
    pub fn finish(mut self) -> Result<Batch> {
        let schema = self.schema;
        let missing =
            |what: String| Err(Error::graph("columns", format!("{what} of the schema are missing")));
        if !self.given.ids && !schema.fields.is_empty() {
            return missing("the ids".into());
        }
        if let Some(index) = self.given.lists.iter().position(|given| !given) {
            return missing(format!("the ids of the list `{}`", schema.bags[index].name));
        }
        if !self.given.numbers && !schema.dense.is_empty() {
            return missing("the numbers".into());
        }
        if !self.given.scenario && !schema.scenarios.is_empty() {
            return missing("the scenarios".into());
        }
        if !self.given.labels {
            self.batch.labels.clear();
        }
        self.batch.rows = self.rows.unwrap_or(0);
        Ok(self.batch)
    }

    /// Checks the shape of a column of arrays.
    fn expect(&mut self, what: &str, rows: usize, cols: usize, needed: usize) -> Result<()> {
        if cols != needed {
            return Err(Error::graph(what, format!("is [{rows}, {cols}], [rows, {needed}] is needed")));
        }
        match self.rows {
            Some(first) if first != rows => {
                Err(Error::graph(what, format!("{rows} rows, what was given before has {first}")))
            }
            _ if u32::try_from(rows).is_err() => Err(Error::graph(what, format!("{rows} rows are too many"))),
            _ => {
                self.rows = Some(rows);
                Ok(())
            }
        }
    }
}

/// The row of an id in a table of `rows` rows.
fn table_row(id: u64, rows: usize) -> std::result::Result<u32, String> {
    if id == u64::from(UNKNOWN) {
        return Ok(0);
    }
    // Rows of a table fit u32.
    match u32::try_from(id) {
        Ok(id) if (id as usize + 1) < rows => Ok(id + 1),
        _ => Err(format!("{id}, which is not an id from 0 to {}", rows.saturating_sub(2))),
    }
}

fn wrong_in(row: usize, what: &str, column: impl Display, message: String) -> Error {
    Error::graph(format!("{what} of `{column}`"), format!("row {row} has {message}"))
}

fn wrong_label(task: &manygate_features::Task, labels: &[f32]) -> Option<(usize, String)> {
    labels.iter().enumerate().find_map(|(row, &label)| Some((row, task.check_label(label).err()?)))
}

fn check_scenarios(schema: &Schema, scenario: &[u32]) -> Result<()> {
    let count = schema.scenarios.len();
    match scenario.iter().position(|&s| s as usize >= count) {
        Some(row) => {
            let message = format!("row {row} has {}, the schema has {count} scenarios", scenario[row]);
            Err(Error::graph("scenario", message))
        }
        None => Ok(()),
    }
}

/// Checks a batch that may have been made by hand before it is trained on: what [`Columns`] gives passes.
///
/// # Errors
/// With the first column, row and value that does not fit the schema.
#[cfg(feature = "train")]
pub(crate) fn check_labelled(schema: &Schema, batch: &Batch) -> Result<()> {
    batch.validate()?;
    let columns = (batch.ids.len(), batch.bags.len(), batch.dense_width, batch.labels.len());
    let (fields, bags, numbers) = (schema.fields.len(), schema.bags.len(), schema.dense.len());
    let needed = (fields, bags, numbers, schema.tasks.len());
    if columns != needed {
        let message = format!(
            "it has (fields, lists, numbers, tasks) = {columns:?}, the schema has {needed:?}; are labels missing?"
        );
        return Err(Error::graph("batch", message));
    }
    if batch.rows == 0 {
        return Err(Error::graph("batch", "it has no rows"));
    }
    if !schema.scenarios.is_empty() && batch.scenario.len() != batch.rows {
        return Err(Error::graph("batch", "it names no scenarios"));
    }
    check_scenarios(schema, &batch.scenario)?;
    let beyond = |ids: &[u32], rows: usize| ids.iter().position(|&id| id as usize >= rows);
    for (field, ids) in schema.fields.iter().zip(&batch.ids) {
        if let Some(row) = beyond(ids, field.rows) {
            let message = format!("row {} of its table, which has {}", ids[row], field.rows);
            return Err(wrong_in(row, "ids", &field.name, message));
        }
    }
    for (list, bag) in schema.bags.iter().zip(&batch.bags) {
        let rows = schema.table_index(&list.table).map_or(0, |table| schema.tables[table].rows);
        if let Some(at) = beyond(&bag.ids, rows) {
            let row = bag.offsets.partition_point(|&offset| offset as usize <= at).saturating_sub(1);
            let message = format!("row {} of its table, which has {rows}", bag.ids[at]);
            return Err(wrong_in(row, "list", &list.name, message));
        }
        let longest = list.max_length.unwrap_or(usize::MAX);
        if let Some(row) = (0..batch.rows).find(|&row| bag.row(row).len() > longest) {
            let message = format!("{} ids, at most {longest} are possible", bag.row(row).len());
            return Err(wrong_in(row, "list", &list.name, message));
        }
    }
    if let Some(at) = batch.dense.iter().position(|number| !number.is_finite()) {
        let message = format!("{}, which is not a finite number", batch.dense[at]);
        return Err(wrong_in(at / numbers, "numbers", &schema.dense[at % numbers], message));
    }
    for (task, labels) in schema.tasks.iter().zip(&batch.labels) {
        if let Some((row, message)) = wrong_label(task, labels) {
            return Err(wrong_in(row, "labels", &task.name, message));
        }
    }
    Ok(())
}
