//! The `[[features]]` and `[[tasks]]` sections of a configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One `[[features]]` section: how some columns become inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum FeatureConfig {
    /// One id a row: a row of an embedding table.
    Categorical {
        /// Columns of the data; each is a field of the model.
        columns: Vec<String>,
        /// Values seen fewer times than this in the fit rows become the unknown row 0; 1 when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_count: Option<u32>,
        /// The column holds integer ids from 0 to `ids - 1`, no vocabulary is kept: id `i` is row `i + 1`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ids: Option<u32>,
        /// In place of a vocabulary: every value, unseen ones too, is hashed to one of this many rows beside the unknown
        /// row, which none uses. Values may share a row. Neither `ids` nor `min_count` goes with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hash: Option<u32>,
        /// Embedding width, in place of the model's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dim: Option<usize>,
        /// Name of the table; columns that name the same table share its rows. Each column's own name when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<String>,
        /// The scenarios that have the columns, as `column=value`: elsewhere cells are not read, and a sample has a zero in
        /// their place. A categorical or bucketed column with it follows the other fields, and its unknown values are zeros
        /// too. Every scenario when left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        only_in: Vec<String>,
    },
    /// One number a row, standardised: (x - mean) / population standard deviation over the fit rows; but for a raw one.
    Numeric {
        /// Columns of the data.
        columns: Vec<String>,
        /// Applied before the statistics are taken.
        #[serde(default)]
        transform: Transform,
        /// Texts that, like an empty cell, mean "missing". A missing number is 0 after standardising.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
        /// As for categorical columns.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        only_in: Vec<String>,
    },
    /// One number a row that becomes an id: bucket `b` holds `boundaries[b - 1] <= x < boundaries[b]`. Missing numbers
    /// have a row of their own, which learns like that of a bucket. The table is named after the column.
    Bucket {
        /// Columns of the data; each is a field of the model.
        columns: Vec<String>,
        /// Where one bucket ends and the next begins; they rise. Either these or `quantiles`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boundaries: Option<Vec<f64>>,
        /// As many buckets, with boundaries such that each holds as many numbers of the fit rows, as far as equal numbers
        /// permit. Fitting holds the numbers of the column in memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quantiles: Option<u32>,
        /// Texts that, like an empty cell, mean "missing".
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
        /// Embedding width, in place of the model's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dim: Option<usize>,
        /// As for categorical columns.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        only_in: Vec<String>,
    },
    /// Several values in a cell, without order.
    Bag {
        /// Columns of the data.
        columns: Vec<String>,
        /// Text between two values.
        separator: String,
        /// How the embeddings of a cell become one.
        #[serde(default)]
        pooling: Pooling,
        /// As for categorical columns; unknown values are dropped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_count: Option<u32>,
        /// As for categorical columns: no value is unknown then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hash: Option<u32>,
        /// Embedding width, in place of the model's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dim: Option<usize>,
        /// The table of a categorical feature, or the name of a bag or sequence column. Each column's own when left
        /// out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<String>,
        /// As for categorical columns.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        only_in: Vec<String>,
    },
    /// Several values in a cell, oldest first.
    Sequence {
        /// Columns of the data.
        columns: Vec<String>,
        /// Text between two values.
        separator: String,
        /// Only the last `max_length` of its values are kept.
        max_length: usize,
        /// How models that do not attend to the order pool a sequence.
        #[serde(default)]
        pooling: Pooling,
        /// As for categorical columns; unknown values are dropped, unless `keep_unknown`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_count: Option<u32>,
        /// As for categorical columns: no value is unknown then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hash: Option<u32>,
        /// Embedding width, in place of the model's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dim: Option<usize>,
        /// As for bags.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<String>,
        /// Whether unknown values keep their places, with the row of all unknown ones, so that two columns of one
        /// length stay side by side.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep_unknown: bool,
        /// As for categorical columns.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        only_in: Vec<String>,
    },
    /// log1p of the number of values in a cell, standardised: a number.
    Length {
        /// Columns of the data.
        columns: Vec<String>,
        /// Text between two values.
        separator: String,
        /// As for categorical columns.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        only_in: Vec<String>,
    },
}

impl FeatureConfig {
    /// The columns that this feature reads.
    pub fn columns(&self) -> &[String] {
        match self {
            FeatureConfig::Categorical { columns, .. }
            | FeatureConfig::Numeric { columns, .. }
            | FeatureConfig::Bucket { columns, .. }
            | FeatureConfig::Bag { columns, .. }
            | FeatureConfig::Sequence { columns, .. }
            | FeatureConfig::Length { columns, .. } => columns,
        }
    }

    /// The same feature of one column, for each that it reads.
    pub fn by_column(&self) -> impl Iterator<Item = FeatureConfig> {
        let of = |column: &String| {
            let mut one = self.clone();
            let (FeatureConfig::Categorical { columns, .. }
            | FeatureConfig::Numeric { columns, .. }
            | FeatureConfig::Bucket { columns, .. }
            | FeatureConfig::Bag { columns, .. }
            | FeatureConfig::Sequence { columns, .. }
            | FeatureConfig::Length { columns, .. }) = &mut one;
            *columns = vec![column.clone()];
            one
        };
        self.columns().iter().map(of)
    }

    /// The scenarios that have those columns, as `column=value`; empty for all.
    pub fn only_in(&self) -> &[String] {
        match self {
            FeatureConfig::Categorical { only_in, .. }
            | FeatureConfig::Numeric { only_in, .. }
            | FeatureConfig::Bucket { only_in, .. }
            | FeatureConfig::Bag { only_in, .. }
            | FeatureConfig::Sequence { only_in, .. }
            | FeatureConfig::Length { only_in, .. } => only_in,
        }
    }
}

/// What is done to a number before it is standardised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// Nothing.
    #[default]
    Identity,
    /// ln(1 + x), for x > -1.
    Log1p,
    /// Nothing, and it is not standardised either: a number that a model uses as it is, a row's weight say.
    Raw,
}

/// How the embeddings of a list become one vector; an empty list becomes the zero vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// One `[[tasks]]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Name of the task.
    pub name: String,
    /// Column of its label; the name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What the label is.
    #[serde(default)]
    pub kind: TaskKind,
    /// Weight of its loss.
    #[serde(default = "one")]
    pub weight: f32,
    /// A binary task: the loss counts only rows whose label of that task is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// Texts of the column that count as 1, where it does not hold 0 and 1: every other text counts as 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub positive: Vec<String>,
    /// A binary task without whose event this one's cannot happen. Rows that say otherwise are counted and told; unlike
    /// with `space`, all rows count in the loss. Models of cascades read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether it is served.
    #[serde(default)]
    pub role: TaskRole,
    /// How much the rows of a scenario count in the loss beside those of the others, by value of the scenario column and
    /// on top of `data.scenario_weights`; 1 where it is not named. The loss is the weighted mean over rows: a factor
    /// that all scenarios have changes nothing, that is what `weight` is for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scenario_weights: BTreeMap<String, f32>,
}

fn one() -> f32 {
    1.0
}

/// What a label is, and with it what is predicted and by which loss it is learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// 0 or 1: a probability, binary cross-entropy.
    #[default]
    Binary,
    /// Any finite number: its mean, the mean of (y - p)^2. Labels are learnt as they are, not standardised.
    Regression,
    /// A finite number from 0 up, as a rule a count: its rate e^z, the mean of e^z - y z.
    Poisson,
}

/// Whether a task is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskRole {
    /// It is.
    #[default]
    Primary,
    /// It helps to train the others: it is neither predicted nor counted when a checkpoint is chosen. Where labels are
    /// scored it is scored too.
    Auxiliary,
}

/// Columns with a role beside being an input, from the `[data]` section.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Roles<'a> {
    /// The column whose values are the scenarios.
    pub scenario: Option<&'a str>,
    /// The scenario that stands in for values which no fit row has. Without it such a value is an error.
    pub unknown_scenario: Option<&'a str>,
    /// How much the rows of a scenario count in the losses of all tasks, by its value; none is 1 for all.
    pub scenario_weights: Option<&'a BTreeMap<String, f32>>,
    /// The column that groups rows for the grouped AUC.
    pub user: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sections {
        features: Vec<FeatureConfig>,
        tasks: Vec<TaskConfig>,
    }

    const EVERY_KIND: &str = r#"
        [[features]]
        kind = "categorical"
        columns = ["user_id", "video_id"]
        [[features]]
        kind = "numeric"
        columns = ["age"]
        transform = "log1p"
        missing = ["?"]
        [[features]]
        kind = "bucket"
        columns = ["price"]
        boundaries = [1.0, 9.5]
        [[features]]
        kind = "bag"
        columns = ["tag"]
        separator = ","
        pooling = "sum"
        hash = 1000
        [[features]]
        kind = "sequence"
        columns = ["history"]
        separator = "|"
        table = "video_id"
        max_length = 12
        [[features]]
        kind = "length"
        columns = ["history"]
        separator = "|"
        [[tasks]]
        name = "click"
        [[tasks]]
        name = "buy"
        column = "bought"
        kind = "binary"
        weight = 0.5
        space = "click"
    "#;

    #[test]
    fn sections_parse_with_their_defaults_and_survive_a_round_trip() {
        let sections: Sections = toml::from_str(EVERY_KIND).unwrap();
        assert_eq!(
            sections.features[1],
            FeatureConfig::Numeric {
                columns: vec!["age".into()],
                transform: Transform::Log1p,
                missing: vec!["?".into()],
                only_in: Vec::new(),
            }
        );
        assert_eq!(sections.tasks[0].weight, 1.0);
        assert_eq!(sections.tasks[1].space.as_deref(), Some("click"));
        assert_eq!((sections.tasks[0].kind, sections.tasks[0].role), (TaskKind::Binary, TaskRole::Primary));
        let again: Sections = toml::from_str(&toml::to_string(&sections).unwrap()).unwrap();
        assert_eq!(again.features, sections.features);
        assert_eq!(again.tasks, sections.tasks);
    }

    #[test]
    fn unknown_keys_and_kinds_are_errors() {
        for (key, broken) in [
            ("max_len", EVERY_KIND.replace("max_length", "max_len")),
            ("separator", EVERY_KIND.replace("transform = \"log1p\"", "separator = \",\"")),
            ("wieght", EVERY_KIND.replace("weight", "wieght")),
            ("regresion", EVERY_KIND.replace("\"binary\"", "\"regresion\"")),
            ("helper", EVERY_KIND.replace("space =", "role = \"helper\"\nspace =")),
            ("numerical", EVERY_KIND.replace("\"numeric\"", "\"numerical\"")),
        ] {
            let message = toml::from_str::<Sections>(&broken).unwrap_err().to_string();
            assert!(message.contains(key), "{key}: {message}");
        }
    }
}
