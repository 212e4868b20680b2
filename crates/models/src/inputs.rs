//! What a model is given: fields, bags, numbers, scenarios and tasks, without any data.

use manygate_kernels::embedding::Pooling;
use std::fmt;

/// An embedding table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Name; the tensor is `embedding.<name>.weight`.
    pub name: String,
    /// Rows, the unknown row 0 included.
    pub rows: usize,
    /// Values a row; [`None`] takes the model's `embedding_dim`.
    pub dim: Option<usize>,
}

/// A categorical field: one id a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name of the column.
    pub name: String,
    /// Index of its table.
    pub table: usize,
}

/// A multi-valued field or a sequence: several ids a row.
#[derive(Clone, Debug, PartialEq)]
pub struct BagField {
    /// Name of the column.
    pub name: String,
    /// Index of its table.
    pub table: usize,
    /// How its rows become one, where a model does not read them one by one.
    pub pooling: Pooling,
    /// Most ids a row of a sequence; [`None`] for a bag, whose order means nothing.
    pub longest: Option<usize>,
}

/// What a label is, and with it what is predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskKind {
    /// 0 or 1: a probability.
    #[default]
    Binary,
    /// Any number: its mean.
    Regression,
    /// A count, or another number from 0 up: its rate.
    Poisson,
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskKind::Binary => "binary",
            TaskKind::Regression => "regression",
            TaskKind::Poisson => "poisson",
        })
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Name.
    pub name: String,
    /// What its label is.
    pub kind: TaskKind,
    /// Weight of its loss.
    pub weight: f32,
    /// By scenario: how much its rows count in the loss; empty where all count the same.
    pub scenario_weights: Vec<f32>,
    /// Index of the task whose label must be 1 for a row to count in this one's loss.
    pub space: Option<usize>,
    /// Index of the task without whose event this one's cannot happen.
    pub after: Option<usize>,
    /// Whether it only helps to train, and is not served.
    pub auxiliary: bool,
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
            auxiliary: false,
        }
    }
}

/// Everything that a model may read and must predict, in the order of the batch's columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Tables, of fields and bags.
    pub tables: Vec<Table>,
    /// Categorical fields.
    pub fields: Vec<Field>,
    /// Bags and sequences.
    pub bags: Vec<BagField>,
    /// Numbers a row.
    pub dense: usize,
    /// Their names, for a model that reads one by itself; may be left out.
    pub dense_names: Vec<String>,
    /// Number of scenarios, 0 where there are none.
    pub scenarios: usize,
    /// Tasks.
    pub tasks: Vec<Task>,
}

impl Inputs {
    /// Number, field and length of each sequence.
    pub fn sequences(&self) -> impl Iterator<Item = (usize, &BagField, usize)> {
        self.bags.iter().enumerate().filter_map(|(i, bag)| Some((i, bag, bag.longest?)))
    }

    /// Names of the tasks.
    pub fn task_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.tasks.iter().map(|t| t.name.as_str())
    }
}
