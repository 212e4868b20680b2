//! A small configuration of every kind of feature, and rows for it.

use manygate_features::{Encoder, FeatureConfig, Fitter, Roles, TaskConfig};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sections {
    pub(crate) features: Vec<FeatureConfig>,
    pub(crate) tasks: Vec<TaskConfig>,
}

pub(crate) const EVERY_KIND: &str = r#"
    [[features]]
    kind = "categorical"
    columns = ["user", "item"]
    [[features]]
    kind = "categorical"
    columns = ["hour"]
    ids = 24
    dim = 4
    [[features]]
    kind = "numeric"
    columns = ["age"]
    missing = ["?"]
    [[features]]
    kind = "bag"
    columns = ["tag"]
    separator = ","
    min_count = 2
    [[features]]
    kind = "sequence"
    columns = ["history"]
    separator = "|"
    table = "item"
    max_length = 2
    [[features]]
    kind = "length"
    columns = ["history"]
    separator = "|"
    [[tasks]]
    name = "click"
    [[tasks]]
    name = "buy"
    column = "bought"
    weight = 0.5
    space = "click"
"#;

pub(crate) const ROLES: Roles<'_> =
    Roles { scenario: Some("tab"), unknown_scenario: None, scenario_weights: None, user: Some("user") };

/// Rows of user, item, hour, tag, history, age, tab.
pub(crate) const ROWS: [[&str; 7]; 4] = [
    ["ann", "i1", "0", "a,b", "", "10", "home"],
    ["bob", "i2", "23", "b,c", "i1|i9|i2|i1", "30", "feed"],
    ["ann", "i3", "5", "", "i2", "", "home"],
    ["", "i1", "5", "c,c", "i3||i2", "?", "feed"],
];

pub(crate) fn fitter(text: &str, roles: Roles<'_>) -> manygate_core::Result<Fitter> {
    let sections: Sections = toml::from_str(text).unwrap();
    Fitter::new(roles, &sections.features, &sections.tasks)
}

pub(crate) fn encoder(roles: Roles<'_>) -> Encoder {
    let mut fitter = fitter(EVERY_KIND, roles).unwrap();
    assert_eq!(fitter.columns(), ["user", "item", "hour", "tag", "history", "age", "tab"]);
    for row in ROWS {
        fitter.observe(&row).unwrap();
    }
    fitter.finish().unwrap()
}
