//! What an encoder knows beside the schema: separators, transforms, statistics, label columns; and the layout that
//! says which cell of a row feeds which column of a batch.

use serde::{Deserialize, Serialize};

use crate::bucket::Buckets;
use crate::config::Transform;
use crate::number::read_number;
use crate::numbering::Numbering;
use crate::schema::Schema;
use crate::text::shown;
use crate::vocabulary::pieces;

/// How cells become columns of a batch, in the order of the schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// Separator of each list; [`WHOLE_CELL`] where a cell is one value.
    pub(crate) separators: Vec<String>,
    /// For each list, the scenarios that have it; none for all.
    #[serde(default)]
    pub(crate) list_scenarios: Vec<Vec<String>>,
    /// Names of the lists whose unknown values keep their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keep_unknown: Vec<String>,
    /// Each number.
    pub(crate) dense: Vec<DenseInput>,
    /// Label column of each task.
    pub(crate) labels: Vec<String>,
    /// For each task, the texts of its column that count as 1; none where the column holds 0 and 1.
    pub(crate) positive: Vec<Vec<String>>,
    /// For each table, which row a value has.
    pub(crate) rows: Vec<TableRows>,
    /// The scenario that stands in for unseen values.
    pub(crate) unknown_scenario: Option<String>,
}

/// Which row of a table a value has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TableRows {
    /// The one that a vocabulary says.
    Vocabulary,
    /// Values are integers below this.
    Ids(u32),
    /// Values are hashed to as many rows.
    Hash(u32),
    /// Values are numbers.
    Buckets(Buckets),
}

/// A number of the model's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenseInput {
    /// The column.
    pub(crate) column: String,
    /// How its cells are read.
    pub(crate) source: DenseSource,
    /// Mean over the fit rows where it is present, after the transform.
    pub(crate) mean: f64,
    /// Population standard deviation over the same rows; 1 where it would be 0.
    pub(crate) std: f64,
    /// The scenarios that have it; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) only_in: Vec<String>,
}

/// In place of a separator: the cell is one value.
pub(crate) const WHOLE_CELL: &str = "";

/// Whether a row of `scenario` has what these scenarios have; none of them stands for all.
pub(crate) fn has(scenarios: &[String], scenario: Option<&str>) -> bool {
    scenarios.is_empty() || scenarios.iter().any(|name| Some(name.as_str()) == scenario)
}

/// How a cell becomes a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum DenseSource {
    /// The cell is a number.
    Number {
        /// Applied to it.
        transform: Transform,
        /// Texts that mean "missing", beside the empty one.
        missing: Vec<String>,
    },
    /// log1p of the number of values in the cell.
    Length {
        /// Text between two values.
        separator: String,
    },
}

impl DenseInput {
    /// Name among the schema's numbers.
    pub(crate) fn name(&self) -> String {
        match self.source {
            DenseSource::Number { .. } => self.column.clone(),
            DenseSource::Length { .. } => format!("{}.length", self.column),
        }
    }

    /// Whether it is taken as it is.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.source, DenseSource::Number { transform: Transform::Raw, .. })
    }

    /// The number in `cell` before standardising, `None` when it is missing.
    ///
    /// # Errors
    /// What is wrong with the cell and what to do.
    pub(crate) fn read(&self, cell: &str) -> Result<Option<f64>, String> {
        match &self.source {
            DenseSource::Number { transform, missing } => {
                let Some(number) = read_number(cell, missing)? else { return Ok(None) };
                match transform {
                    Transform::Identity | Transform::Raw => Ok(Some(number)),
                    Transform::Log1p if number > -1.0 => Ok(Some(number.ln_1p())),
                    Transform::Log1p => Err(format!(
                        "log1p needs a value above -1, not {}: correct the file, or set `transform = \"identity\"` \
                         for the feature",
                        shown(cell.trim())
                    )),
                }
            }
            DenseSource::Length { separator } => Ok(Some((pieces(cell, separator).count() as f64).ln_1p())),
        }
    }

    /// The standardised number, 0 when it is missing.
    pub(crate) fn standardise(&self, number: Option<f64>) -> f32 {
        // The clamp keeps a far outlier of a nearly constant column finite.
        let limit = f64::from(f32::MAX);
        number.map_or(0.0, |x| ((x - self.mean) / self.std).clamp(-limit, limit) as f32)
    }
}

/// Which cell of a row feeds which column of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layout {
    /// The columns of a row, each once.
    pub(crate) columns: Vec<String>,
    /// Each field's cell and table.
    pub(crate) fields: Vec<Source>,
    /// Each list's cell and table.
    pub(crate) lists: Vec<Source>,
    /// Whether the unknown values of each list keep their places.
    pub(crate) keeps_unknown: Vec<bool>,
    /// Each number's cell.
    pub(crate) dense: Vec<usize>,
    /// The scenario's cell.
    pub(crate) scenario: Option<usize>,
}

/// The cell that feeds ids, and their table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) cell: usize,
    pub(crate) table: usize,
}

impl Recipe {
    /// The scenarios that have list number `list`; none for all.
    pub(crate) fn scenarios_of_list(&self, list: usize) -> &[String] {
        self.list_scenarios.get(list).map_or(&[], Vec::as_slice)
    }

    /// Every scenario that an input is said to be only in.
    pub(crate) fn named_scenarios(&self) -> impl Iterator<Item = &String> {
        self.list_scenarios.iter().chain(self.dense.iter().map(|input| &input.only_in)).flatten()
    }
}

impl Layout {
    /// The layout of a schema and its recipe.
    ///
    /// # Errors
    /// The name of a table that the schema does not have.
    pub(crate) fn new(schema: &Schema, recipe: &Recipe) -> Result<Layout, String> {
        let mut columns = Numbering::default();
        let mut cell = |name: &str| columns.number(name) as usize;
        let table =
            |name: &str| schema.table_index(name).ok_or_else(|| format!("there is no table `{name}`"));
        let mut fields = Vec::new();
        for field in &schema.fields {
            fields.push(Source { cell: cell(&field.name), table: table(&field.table)? });
        }
        let mut lists = Vec::new();
        for bag in &schema.bags {
            lists.push(Source { cell: cell(&bag.name), table: table(&bag.table)? });
        }
        let keeps_unknown = schema.bags.iter().map(|bag| recipe.keep_unknown.contains(&bag.name)).collect();
        let dense = recipe.dense.iter().map(|input| cell(&input.column)).collect();
        let scenario = schema.scenario_column.as_deref().map(&mut cell);
        let columns = columns.texts().into_iter().map(str::to_owned).collect();
        Ok(Layout { columns, fields, lists, keeps_unknown, dense, scenario })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(transform: Transform) -> DenseInput {
        let source = DenseSource::Number { transform, missing: vec!["?".into()] };
        DenseInput { column: "age".into(), source, mean: 0.0, std: 1.0, only_in: Vec::new() }
    }

    #[test]
    fn missing_numbers_are_zero_after_standardising() {
        let input = DenseInput { mean: 5.0, std: 2.0, ..number(Transform::Identity) };
        for (cell, want) in [("", 0.0), (" ", 0.0), ("?", 0.0), ("9", 2.0), (" -1.5e1", -10.0)] {
            assert_eq!(input.standardise(input.read(cell).unwrap()), want, "{cell}");
        }
    }

    #[test]
    fn unusable_numbers_say_what_to_do() {
        for (cell, want) in [
            (
                "abc",
                "`abc` is not a number: correct the file, leave the cell empty if it is missing, or add its text",
            ),
            ("NaN", "`NaN` is not a finite number"),
            ("-inf", "`-inf` is not a finite number"),
            ("1e39", "`1e39` is not a finite number within single precision"),
        ] {
            let message = number(Transform::Identity).read(cell).unwrap_err();
            assert!(message.starts_with(want), "{message}");
        }
        assert_eq!(number(Transform::Log1p).read("-0.5"), Ok(Some((-0.5f64).ln_1p())));
        let message = number(Transform::Log1p).read("-1").unwrap_err();
        assert!(message.contains("log1p needs a value above -1, not `-1`"), "{message}");
        assert!(message.contains("`transform = \"identity\"`"), "{message}");
    }

    #[test]
    fn an_outlier_of_a_nearly_constant_column_stays_finite() {
        let input = DenseInput { std: 1e-30, ..number(Transform::Identity) };
        assert_eq!(input.standardise(Some(1e38)), f32::MAX);
    }

    #[test]
    fn lengths_count_values() {
        let source = DenseSource::Length { separator: "|".into() };
        let input = DenseInput { column: "history".into(), source, mean: 0.0, std: 1.0, only_in: Vec::new() };
        assert_eq!(input.name(), "history.length");
        assert_eq!(input.read("a|b|c"), Ok(Some(4f64.ln())));
        assert_eq!(input.read(""), Ok(Some(0.0)));
    }
}
