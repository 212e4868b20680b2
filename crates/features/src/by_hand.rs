//! Schemas written down in a program, for data that comes as numbers; and the encoder that goes with one.

use crate::config::Pooling;
use crate::config::Transform;
use crate::encode::Encoder;
use crate::recipe::{DenseInput, DenseSource, Recipe, TableRows};
use crate::schema::{BagField, Field, ListKind, Schema, Table, Task};
use crate::vocabulary::Vocabulary;
use manygate_core::{Error, Result};

/// Text between two ids of a list, where an encoder of [`Encoder::by_ids`] reads text.
pub const ID_SEPARATOR: &str = "|";

/// Each of these adds to a schema and gives it back; [`Schema::validate`], which whatever takes a schema calls, says
/// what is wrong with the whole.
///
/// ```
/// use manygate_features::{Pooling, Schema};
///
/// let schema = Schema::default()
///     .field("user", 10_000)
///     .field("item", 500)
///     .sequence("history", "item", 20)
///     .bag("tags", 40, Pooling::Mean)
///     .number("age")
///     .scenarios("placement", ["feed", "search"])
///     .task("click")
///     .task_within("buy", "click");
/// assert_eq!(schema.tables[1].rows, 501);
/// schema.validate()?;
/// # Ok::<(), manygate_core::Error>(())
/// ```
impl Schema {
    /// One id a row, from 0 to `ids - 1`, with a table of that name.
    #[must_use]
    pub fn field(mut self, name: &str, ids: u32) -> Schema {
        self.add_table(name, ids);
        self.field_of(name, name)
    }

    /// One id a row, looked up in a table that was named before.
    #[must_use]
    pub fn field_of(mut self, name: &str, table: &str) -> Schema {
        let known = self.tables.iter().find(|t| t.name == table);
        let (rows, dim) = known.map_or((0, None), |t| (t.rows, t.dim));
        self.fields.push(Field { name: name.to_owned(), table: table.to_owned(), rows, dim });
        self
    }

    /// Several ids a row, from 0 to `ids - 1`, whose order means nothing, with a table of that name.
    #[must_use]
    pub fn bag(mut self, name: &str, ids: u32, pooling: Pooling) -> Schema {
        self.add_table(name, ids);
        self.list(name, name, pooling, ListKind::Bag, None)
    }

    /// At most `longest` ids a row, oldest first, looked up in a table that was named before.
    #[must_use]
    pub fn sequence(self, name: &str, table: &str, longest: usize) -> Schema {
        self.list(name, table, Pooling::Mean, ListKind::Sequence, Some(longest))
    }

    /// A number a row.
    #[must_use]
    pub fn number(mut self, name: &str) -> Schema {
        self.dense.push(name.to_owned());
        self
    }

    /// The scenarios, by number, and the name of their column.
    #[must_use]
    pub fn scenarios<'a>(mut self, column: &str, names: impl IntoIterator<Item = &'a str>) -> Schema {
        self.scenario_column = Some(column.to_owned());
        self.scenarios = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// A binary task.
    #[must_use]
    pub fn task(mut self, name: &str) -> Schema {
        self.tasks.push(Task::binary(name));
        self
    }

    /// A binary task whose loss counts the rows alone in which the label of the task `space`, named before, is 1.
    #[must_use]
    pub fn task_within(mut self, name: &str, space: &str) -> Schema {
        // One that does not exist is told when the schema is checked.
        let space = self.tasks.iter().position(|task| task.name == space).unwrap_or(usize::MAX);
        self.tasks.push(Task { space: Some(space), ..Task::binary(name) });
        self
    }

    fn add_table(&mut self, name: &str, ids: u32) {
        // One row more: 0 is for what is unknown.
        self.tables.push(Table { name: name.to_owned(), rows: ids as usize + 1, dim: None });
    }

    fn list(
        mut self,
        name: &str,
        table: &str,
        pooling: Pooling,
        kind: ListKind,
        max_length: Option<usize>,
    ) -> Schema {
        let (name, table) = (name.to_owned(), table.to_owned());
        self.bags.push(BagField { name, table, pooling, kind, max_length });
        self
    }
}

impl Encoder {
    /// The encoder of a schema without vocabularies and statistics: ids are integers, id `i` is row `i + 1` of its table,
    /// and numbers are taken as they are. Read from text, ids of a list stand between [`ID_SEPARATOR`]s, an empty number
    /// is 0, and labels have the names of their tasks.
    ///
    /// # Errors
    /// When the schema contradicts itself, or a table has no row but the unknown one.
    pub fn by_ids(schema: Schema) -> Result<Encoder> {
        let wrong = |message: String| Error::graph("schema", message);
        schema.validate()?;
        let mut ids = Vec::with_capacity(schema.tables.len());
        for table in &schema.tables {
            let count = u32::try_from(table.rows - 1).ok().filter(|&count| count > 0);
            ids.push(
                count
                    .ok_or_else(|| wrong(format!("table `{}` has no ids: give at least one", table.name)))?,
            );
        }
        let as_it_is = |column: &String| DenseInput {
            column: column.clone(),
            source: DenseSource::Number { transform: Transform::Identity, missing: Vec::new() },
            mean: 0.0,
            std: 1.0,
            only_in: Vec::new(),
        };
        let recipe = Recipe {
            separators: vec![ID_SEPARATOR.to_owned(); schema.bags.len()],
            list_scenarios: Vec::new(),
            keep_unknown: Vec::new(),
            dense: schema.dense.iter().map(as_it_is).collect(),
            labels: schema.tasks.iter().map(|task| task.name.clone()).collect(),
            positive: vec![Vec::new(); schema.tasks.len()],
            rows: ids.iter().copied().map(TableRows::Ids).collect(),
            unknown_scenario: None,
        };
        Encoder::new(schema, recipe, ids.into_iter().map(Vocabulary::Ids).collect()).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::default()
            .field("item", 9)
            .field_of("last", "item")
            .sequence("history", "item", 2)
            .bag("tags", 4, Pooling::Sum)
            .number("age")
            .scenarios("tab", ["feed", "search"])
            .task("click")
    }

    #[test]
    fn ids_and_numbers_are_taken_as_they_are_and_survive_a_folder() {
        let encoder = Encoder::by_ids(schema()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        encoder.save(folder.path()).unwrap();
        let encoder = Encoder::load(folder.path()).unwrap();
        assert_eq!(encoder.columns(), ["item", "last", "history", "tags", "age", "tab"]);
        let mut batch = encoder.empty_batch(1, true);
        encoder.encode(&["8", "0", "1|2|3", "", "-1.5", "search"], &mut batch).unwrap();
        encoder.encode_labels(&["1"], &mut batch).unwrap();
        batch.validate().unwrap();
        assert_eq!((batch.ids, batch.bags[0].row(0)), (vec![vec![9], vec![1]], &[3, 4][..]));
        assert_eq!((batch.dense, batch.scenario, batch.labels), (vec![-1.5], vec![1], vec![vec![1.0]]));
    }

    #[test]
    fn what_was_named_wrongly_is_told() {
        let told = |schema: Schema| Encoder::by_ids(schema).unwrap_err().to_string();
        assert!(told(schema().field_of("shop", "shops")).contains("there is no table `shops`"));
        assert!(told(schema().task_within("buy", "klick")).contains("label space of task `buy`"));
        assert!(told(schema().field("item", 3)).contains("table `item` appears twice"));
        assert!(told(schema().field("shop", 0)).contains("table `shop` has no ids"));
        assert!(told(schema().sequence("long", "item", 0)).contains("maximum length above 0"));
    }
}
