//! A configuration for data that was described.

use std::collections::BTreeMap;
use std::path::PathBuf;

use manygate_core::Result;
use manygate_features::{FeatureConfig, Pooling, Transform};

use super::kind::Kind;
use super::{Column, Sketched, names};
use crate::config::{DataConfig, ValidConfig};
use crate::sections::{Model, Sections, binary_task};

/// Most ids of a sequence that are suggested.
const MAX_LENGTH: u64 = 50;

/// What was found out beside the columns themselves.
pub(super) struct Roles<'a> {
    pub(super) files: &'a [PathBuf],
    pub(super) scenario: Option<&'a str>,
    pub(super) labels: Vec<&'a str>,
}

/// A configuration as TOML: every column that is of use, and at the top those that were left out.
pub(super) fn configuration(roles: &Roles<'_>, columns: &[Sketched]) -> Result<String> {
    let name_of = |is: &dyn Fn(&Column) -> bool| {
        columns.iter().map(|c| &c.column).find(|column| is(column)).map(|column| column.name.clone())
    };
    let is_whole_time = |column: &Column| {
        let sketch = columns.iter().find(|c| c.column.name == column.name).map(|c| &c.sketch);
        column.kind == Kind::Time && sketch.is_some_and(|s| s.numbers.whole == s.rows)
    };
    let sections = Sections {
        model: Model { name: "mmoe" },
        data: DataConfig {
            train: roles.files.to_vec(),
            test: Vec::new(),
            valid: ValidConfig::LastFraction(0.1),
            scenario: roles.scenario.map(str::to_owned),
            unknown_scenario: None,
            scenario_weights: BTreeMap::new(),
            user: name_of(&|column| names::is_user(&column.name)),
            time: name_of(&is_whole_time),
        },
        features: features(columns),
        tasks: roles.labels.iter().map(|label| binary_task(label, None)).collect(),
    };
    let mut text = String::new();
    for Column { name, left_out, .. } in columns.iter().map(|c| &c.column) {
        if let Some(reason) = left_out {
            // A name may hold a line feed.
            text += &format!("# left out: {}, {reason}\n", name.escape_debug());
        }
    }
    Ok(text + &sections.toml()?)
}

fn features(columns: &[Sketched]) -> Vec<FeatureConfig> {
    let used = || columns.iter().filter(|c| c.column.left_out.is_none() && !c.is_label);
    let is_id = |c: &&Sketched| matches!(c.column.kind, Kind::Categorical | Kind::Binary);
    let ids: Vec<&str> = used().filter(is_id).map(|c| c.column.name.as_str()).collect();
    let mut features = Vec::new();
    if !ids.is_empty() {
        features.push(FeatureConfig::Categorical {
            columns: ids.iter().map(|&name| name.to_owned()).collect(),
            min_count: None,
            ids: None,
            hash: None,
            dim: None,
            table: None,
            only_in: Vec::new(),
        });
    }
    for c in used() {
        let feature = match c.column.kind {
            Kind::Numeric => numeric(c),
            Kind::List { separator, longest } => list(c, separator, longest, &ids),
            _ => continue,
        };
        match features.iter_mut().find_map(|other| joined(other, &feature)) {
            Some(columns) => columns.push(c.column.name.clone()),
            None => features.push(feature),
        }
    }
    features
}

/// The columns of `other`, where it is the same as `feature` but for them.
fn joined<'a>(other: &'a mut FeatureConfig, feature: &FeatureConfig) -> Option<&'a mut Vec<String>> {
    match (other, feature) {
        (
            FeatureConfig::Numeric { columns, transform, missing, .. },
            FeatureConfig::Numeric { transform: wanted, missing: texts, .. },
        ) if transform == wanted && missing == texts => Some(columns),
        _ => None,
    }
}

/// An amount that is never negative and has a long tail is read by its logarithm.
fn numeric(c: &Sketched) -> FeatureConfig {
    let numbers = c.sketch.numbers;
    let skewed = numbers.least >= 0.0 && numbers.deviation() > numbers.mean;
    FeatureConfig::Numeric {
        columns: vec![c.column.name.clone()],
        transform: if skewed { Transform::Log1p } else { Transform::Identity },
        missing: c.sketch.missing_texts.clone(),
        only_in: Vec::new(),
    }
}

/// A history of ids shares the table of the column that it is named after.
fn list(c: &Sketched, separator: char, longest: u64, ids: &[&str]) -> FeatureConfig {
    let name = &c.column.name;
    let table = ids.iter().find(|id| names::is_id(id) && name.contains(**id)).map(|&id| id.to_owned());
    let (columns, separator) = (vec![name.clone()], separator.to_string());
    if names::is_sequence(name) || longest > 8 {
        FeatureConfig::Sequence {
            columns,
            separator,
            max_length: longest.min(MAX_LENGTH) as usize,
            pooling: Pooling::Mean,
            min_count: None,
            hash: None,
            dim: None,
            table,
            keep_unknown: false,
            only_in: Vec::new(),
        }
    } else {
        FeatureConfig::Bag {
            columns,
            separator,
            pooling: Pooling::Mean,
            min_count: None,
            hash: None,
            dim: None,
            table,
            only_in: Vec::new(),
        }
    }
}
