//! The schema: everything that a model needs to know of the data, in the order of a batch's columns.

use std::collections::HashSet;

use manygate_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::config::{Pooling, TaskKind, TaskRole};

/// What a batch holds, column by column. A plain value: a test or a benchmark can write one down without data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Embedding tables, each name once.
    pub tables: Vec<Table>,
    /// One id a row: `Batch::ids`.
    pub fields: Vec<Field>,
    /// Several ids a row: `Batch::bags`.
    pub bags: Vec<BagField>,
    /// Names of the numbers: columns of `Batch::dense`.
    pub dense: Vec<String>,
    /// `Batch::labels`.
    pub tasks: Vec<Task>,
    /// The column whose values are the scenarios.
    pub scenario_column: Option<String>,
    /// Values of the scenario column, by the numbers of `Batch::scenario`; empty without that column.
    pub scenarios: Vec<String>,
    /// The column that groups rows for the grouped AUC.
    pub user: Option<String>,
}

/// An embedding table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Rows, the unknown row 0 included.
    pub rows: usize,
    /// Embedding width, in place of the model's.
    pub dim: Option<usize>,
}

/// A categorical column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The column.
    pub name: String,
    /// Name of its table.
    pub table: String,
    /// Rows of that table, the unknown row 0 included.
    pub rows: usize,
    /// Width of that table, in place of the model's.
    pub dim: Option<usize>,
}

/// A column with several values in a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BagField {
    /// The column.
    pub name: String,
    /// Name of its table.
    pub table: String,
    /// How the embeddings of a cell become one.
    pub pooling: Pooling,
    /// Whether the order of the values means anything.
    pub kind: ListKind,
    /// Most ids a row, for a sequence.
    pub max_length: Option<usize>,
}

/// Whether the order of a list means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListKind {
    /// No order.
    Bag,
    /// Oldest first.
    Sequence,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// What its label is.
    #[serde(default)]
    pub kind: TaskKind,
    /// Weight of its loss.
    pub weight: f32,
    /// By number of the scenario: how much its rows count in the loss; empty where all count the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scenario_weights: Vec<f32>,
    /// Label space: the loss counts only rows whose label of the task with this number is 1.
    pub space: Option<usize>,
    /// The task with this number must have an event where this one has.
    #[serde(default)]
    pub after: Option<usize>,
    /// Whether it is served.
    #[serde(default)]
    pub role: TaskRole,
}

impl Task {
    /// A binary task that is served, of weight 1, over all rows.
    pub fn binary(name: impl Into<String>) -> Task {
        Task {
            name: name.into(),
            kind: TaskKind::Binary,
            weight: 1.0,
            scenario_weights: Vec::new(),
            space: None,
            after: None,
            role: TaskRole::Primary,
        }
    }

    /// Whether it only helps to train.
    pub fn is_auxiliary(&self) -> bool {
        self.role == TaskRole::Auxiliary
    }

    /// Checks a label that comes as a number.
    ///
    /// # Errors
    /// Why it is none of this task.
    pub fn check_label(&self, label: f32) -> std::result::Result<(), String> {
        let (kind, allowed) = self.kind.words();
        match self.kind.has_label(label) {
            true => Ok(()),
            false => Err(format!(
                "{label} is not a label of the {kind} task `{}`, which must be {allowed}",
                self.name
            )),
        }
    }
}

impl Schema {
    /// The number of the table called `name`.
    pub fn table_index(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| table.name == name)
    }

    /// The number of the field made of column `name`.
    pub fn field_index(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Checks that names are unique, that tables exist and agree with their fields, and that label spaces name
    /// other tasks.
    ///
    /// # Errors
    /// [`Error::Graph`] that names the first entry that does not fit.
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|message| Error::graph("schema", message))
    }

    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        unique("table", self.tables.iter().map(|t| &t.name))?;
        unique("field", self.fields.iter().map(|f| &f.name))?;
        unique("list", self.bags.iter().map(|b| &b.name))?;
        unique("number", &self.dense)?;
        unique("task", self.tasks.iter().map(|t| &t.name))?;
        unique("scenario", &self.scenarios)?;
        for table in &self.tables {
            if table.rows == 0 || table.dim == Some(0) || u32::try_from(table.rows - 1).is_err() {
                return Err(format!("table `{}` must have 1 to 2^32 rows and a width above 0", table.name));
            }
        }
        self.check_inputs()?;
        self.check_tasks()?;
        if self.scenario_column.is_none() != self.scenarios.is_empty() {
            return Err("scenarios need a scenario column, and the other way round".into());
        }
        Ok(())
    }

    fn check_tasks(&self) -> std::result::Result<(), String> {
        let is_binary = |t: usize| self.tasks.get(t).is_some_and(|task| task.kind == TaskKind::Binary);
        for (t, task) in self.tasks.iter().enumerate() {
            let name = &task.name;
            let mut weights = task.scenario_weights.iter().chain([&task.weight]);
            if let Some(weight) = weights.find(|w| !(w.is_finite() && **w >= 0.0)) {
                return Err(format!("task `{name}` has the weight {weight}"));
            }
            if ![0, self.scenarios.len()].contains(&task.scenario_weights.len()) {
                return Err(format!("task `{name}` has weights of other scenarios"));
            }
            if task.space.is_some_and(|space| space == t || !is_binary(space)) {
                return Err(format!("the label space of task `{name}` is not another task that is binary"));
            }
            if task.after.is_some_and(|after| after == t || !is_binary(after)) {
                return Err(format!("what task `{name}` comes after is not another task that is binary"));
            }
        }
        match self.task_after_itself() {
            Some(t) => Err(format!("task `{}` comes after itself", self.tasks[t].name)),
            None => Ok(()),
        }
    }

    /// A task that comes after itself by way of others.
    pub(crate) fn task_after_itself(&self) -> Option<usize> {
        let comes_back = |t: &usize| {
            let before = std::iter::successors(self.tasks[*t].after, |&other| self.tasks[other].after);
            before.take(self.tasks.len()).any(|other| other == *t)
        };
        (0..self.tasks.len()).find(comes_back)
    }

    fn check_inputs(&self) -> std::result::Result<(), String> {
        let table = |name: &str| {
            let index = self.table_index(name).ok_or_else(|| format!("there is no table `{name}`"))?;
            Ok::<_, String>(&self.tables[index])
        };
        for field in &self.fields {
            let table = table(&field.table)?;
            if (table.rows, table.dim) != (field.rows, field.dim) {
                return Err(format!("field `{}` and its table `{}` disagree", field.name, table.name));
            }
        }
        for bag in &self.bags {
            table(&bag.table)?;
            let fits = match bag.kind {
                ListKind::Bag => bag.max_length.is_none(),
                ListKind::Sequence => bag.max_length.is_some_and(|length| length > 0),
            };
            if !fits {
                return Err(format!("a maximum length above 0 belongs to sequences only: `{}`", bag.name));
            }
        }
        Ok(())
    }
}

fn unique<'a>(what: &str, names: impl IntoIterator<Item = &'a String>) -> std::result::Result<(), String> {
    let mut seen = HashSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(format!("{what} `{name}` appears twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Schema {
        let field =
            |name: &str, table: &str, rows| Field { name: name.into(), table: table.into(), rows, dim: None };
        Schema {
            tables: vec![
                Table { name: "user".into(), rows: 5, dim: None },
                Table { name: "item".into(), rows: 9, dim: None },
            ],
            fields: vec![field("user", "user", 5), field("item", "item", 9)],
            bags: vec![BagField {
                name: "history".into(),
                table: "item".into(),
                pooling: Pooling::Mean,
                kind: ListKind::Sequence,
                max_length: Some(3),
            }],
            tasks: vec![
                Task::binary("click"),
                Task { space: Some(0), ..Task::binary("buy") },
                Task { after: Some(0), ..Task::binary("pay") },
            ],
            ..Schema::default()
        }
    }

    #[test]
    fn a_schema_can_be_written_down_without_data() {
        let schema = small();
        schema.validate().unwrap();
        assert_eq!((schema.table_index("item"), schema.field_index("history")), (Some(1), None));
        let text = serde_json::to_string(&schema).unwrap();
        assert_eq!(serde_json::from_str::<Schema>(&text).unwrap(), schema);
    }

    #[test]
    fn contradictions_are_named() {
        type Breaker = fn(&mut Schema);
        let breakers: [(&str, Breaker); 13] = [
            ("table `user` appears twice", |s| s.tables[1].name = "user".into()),
            ("there is no table `shop`", |s| s.fields[0].table = "shop".into()),
            ("field `item` and its table `item` disagree", |s| s.fields[1].rows = 8),
            ("table `item` must have", |s| s.tables[1].rows = 0),
            ("belongs to sequences only: `history`", |s| s.bags[0].kind = ListKind::Bag),
            ("task `buy` has the weight NaN", |s| s.tasks[1].weight = f32::NAN),
            ("the label space of task `click` is not another task", |s| s.tasks[0].space = Some(0)),
            ("the label space of task `buy` is not another task that is binary", |s| {
                s.tasks[0].kind = TaskKind::Regression;
            }),
            ("what task `pay` comes after is not another task", |s| s.tasks[2].after = Some(9)),
            ("task `click` comes after itself", |s| s.tasks[0].after = Some(2)),
            ("task `buy` has weights of other scenarios", |s| s.tasks[1].scenario_weights = vec![1.0]),
            ("task `click` has the weight -1", |s| s.tasks[0].scenario_weights = vec![-1.0]),
            ("scenarios need a scenario column", |s| s.scenario_column = Some("tab".into())),
        ];
        for (want, break_it) in breakers {
            let mut schema = small();
            break_it(&mut schema);
            let message = schema.validate().unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
    }
}
