//! The `[data]` section of a configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which files are read and which columns have a role beside being inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// CSV files with a header, plain, gzip or zstd, read one after the other; relative to the working directory. A name
    /// may be a pattern, `day-*.csv.gz`, whose files are read in the order of their names. Columns are found by name in
    /// each file.
    pub train: Vec<PathBuf>,
    /// Files of the test rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<PathBuf>,
    /// Which rows of the training files are for validation; the others are the fit rows.
    pub valid: ValidConfig,
    /// The column whose values are the scenarios.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// The scenario that stands in for values which no fit row has. Without it such a value is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_scenario: Option<String>,
    /// How much the rows of a scenario count in the losses of all tasks beside those of the others, by value of its
    /// column; 1 where it is not named. See `scenario_weights` of a task for those of one task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scenario_weights: BTreeMap<String, f32>,
    /// The column that groups rows for the grouped AUC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A column of integer times. It is checked and not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// Which rows of the training files are for validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ValidKeys", into = "ValidKeys")]
pub enum ValidConfig {
    /// Rows with one of some values in a column.
    Column {
        /// The column.
        column: String,
        /// The values, as they stand in the file.
        values: Vec<String>,
    },
    /// The last floor(fraction * rows) rows in the order of the files.
    LastFraction(f64),
}

/// The keys of `valid`. An untagged enum would answer every mistake with "did not match any variant".
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_fraction: Option<f64>,
}

impl TryFrom<ValidKeys> for ValidConfig {
    type Error = String;

    fn try_from(keys: ValidKeys) -> Result<Self, String> {
        match (keys.column, keys.values, keys.last_fraction) {
            (Some(column), Some(values), None) => Ok(ValidConfig::Column { column, values }),
            (None, None, Some(fraction)) => Ok(ValidConfig::LastFraction(fraction)),
            _ => Err("`valid` needs either `column` and `values`, or `last_fraction`".into()),
        }
    }
}

impl From<ValidConfig> for ValidKeys {
    fn from(valid: ValidConfig) -> Self {
        match valid {
            ValidConfig::Column { column, values } => {
                ValidKeys { column: Some(column), values: Some(values), last_fraction: None }
            }
            ValidConfig::LastFraction(fraction) => {
                ValidKeys { column: None, values: None, last_fraction: Some(fraction) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_validation_parse_and_survive_a_round_trip() {
        let config: DataConfig = toml::from_str(
            "train = [\"a.csv\"]\nvalid = { column = \"date\", values = [\"20220505\"] }\nscenario = \"tab\"",
        )
        .unwrap();
        assert_eq!(
            config.valid,
            ValidConfig::Column { column: "date".into(), values: vec!["20220505".into()] }
        );
        assert_eq!(toml::from_str::<DataConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        let config: DataConfig = toml::from_str("train = []\nvalid = { last_fraction = 0.1 }").unwrap();
        assert_eq!(config.valid, ValidConfig::LastFraction(0.1));
        assert_eq!(toml::from_str::<DataConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, want) in [
            (
                "train = []\nvalid = { column = \"date\" }",
                "needs either `column` and `values`, or `last_fraction`",
            ),
            ("train = []\nvalid = { fraction = 0.1 }", "unknown field `fraction`"),
            ("train = []\nvalid = { last_fraction = 0.1 }\nscenarios = \"tab\"", "unknown field `scenarios`"),
            ("valid = { last_fraction = 0.1 }", "missing field `train`"),
        ] {
            let message = toml::from_str::<DataConfig>(text).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
    }
}
