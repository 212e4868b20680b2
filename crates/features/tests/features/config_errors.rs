//! Configurations that cannot be used, and what their errors say.

use crate::support::{EVERY_KIND, ROLES, ROWS, fitter};
use manygate_features::Roles;

#[track_caller]
fn refused(features: &str, tasks: &str, want: &str) {
    let text = format!("features = [{features}]\ntasks = [{tasks}]");
    let message = fitter(&text, Roles::default()).unwrap_err().to_string();
    assert!(message.starts_with("configuration: "), "{message}");
    assert!(message.contains(want), "{message}");
}

const USER: &str = r#"{ kind = "categorical", columns = ["user"] }"#;
const CLICK: &str = r#"{ name = "click" }"#;

#[test]
fn features_that_contradict_each_other() {
    refused("", CLICK, "features: at least one [[features]] section is needed");
    refused(r#"{ kind = "numeric", columns = [] }"#, CLICK, "features[0].columns: name at least one column");
    for (feature, want) in [
        (USER, "features[1].columns: column `user` is already an input of this kind"),
        (r#"{ kind = "categorical", columns = ["a"], ids = 0 }"#, "features[1].ids: at least one id"),
        (r#"{ kind = "categorical", columns = ["a"], dim = 0 }"#, "features[1].dim: must be at least 1"),
        (
            r#"{ kind = "categorical", columns = ["a"], min_count = 0 }"#,
            "features[1].min_count: must be at least 1",
        ),
        (
            r#"{ kind = "categorical", columns = ["a"], table = "user", ids = 5 }"#,
            "must agree: give all the same `ids`",
        ),
        (r#"{ kind = "numeric", columns = ["x", "x"] }"#, "column `x` is already an input"),
        (r#"{ kind = "bag", columns = ["a"], separator = "" }"#, "features[1].separator: must not be empty"),
        (
            r#"{ kind = "length", columns = ["a"], separator = "" }"#,
            "features[1].separator: must not be empty",
        ),
        (
            r#"{ kind = "sequence", columns = ["a"], separator = "|", max_length = 0 }"#,
            "features[1].max_length: must be at least 1",
        ),
        (
            r#"{ kind = "bag", columns = ["a"], separator = "|", table = "usr" }"#,
            "features[1].table: `usr` is neither the table of a categorical feature nor a list column; did you mean \
             `user`?",
        ),
        (
            r#"{ kind = "bag", columns = ["a"], separator = "|", table = "user", min_count = 2 }"#,
            "features[1].min_count: the vocabulary of `user` is that of a categorical feature: set `min_count` there",
        ),
        (
            r#"{ kind = "categorical", columns = ["a"], hash = 0 }"#,
            "features[1].hash: at least one row is needed",
        ),
        (
            r#"{ kind = "categorical", columns = ["a"], hash = 9, ids = 9 }"#,
            "features[1].hash: a table with `ids` takes integers as they are: give one of `ids` and `hash`",
        ),
        (
            r#"{ kind = "sequence", columns = ["a"], separator = "|", max_length = 3, hash = 9, min_count = 2 }"#,
            "features[1].hash: values are not counted where they are hashed: give one of `hash` and `min_count`",
        ),
        (
            r#"{ kind = "categorical", columns = ["a"], hash = 9, table = "user" }"#,
            "features[1].hash: features that share the table `user` must agree: give all the same `hash`",
        ),
        (
            r#"{ kind = "bag", columns = ["a"], separator = "|", table = "user", hash = 9 }"#,
            "features[1].hash: the vocabulary of `user` is that of a categorical feature: set `hash` there",
        ),
        (r#"{ kind = "bucket", columns = ["a"] }"#, "features[1].boundaries: give either `boundaries` or"),
        (
            r#"{ kind = "bucket", columns = ["a"], boundaries = [1.0], quantiles = 4 }"#,
            "features[1].quantiles: give either",
        ),
        (
            r#"{ kind = "bucket", columns = ["a"], quantiles = 1 }"#,
            "features[1].quantiles: at least 2 buckets",
        ),
        (
            r#"{ kind = "bucket", columns = ["a"], quantiles = 4000000000 }"#,
            "features[1].quantiles: more than 65536, the most that is possible",
        ),
        (
            r#"{ kind = "bucket", columns = ["a"], boundaries = [2.0, 1.0] }"#,
            "features[1].boundaries: must rise, and 2 does not stand below 1",
        ),
        (
            r#"{ kind = "bucket", columns = ["a"], boundaries = [nan] }"#,
            "features[1].boundaries: NaN is not a finite number",
        ),
        (
            r#"{ kind = "bucket", columns = ["user"], quantiles = 4 }"#,
            "features[1].columns: column `user` is already an input of this kind",
        ),
        (
            r#"{ kind = "bucket", columns = ["a"], quantiles = 4 }, { kind = "categorical", columns = ["b"], table = "a" }"#,
            "features[2].table: `a` holds the buckets of a number: name another table",
        ),
        (
            r#"{ kind = "categorical", columns = ["b"], table = "a" }, { kind = "bucket", columns = ["a"], quantiles = 4 }"#,
            "features[2].columns: `a` is already the name of a table",
        ),
        (r#"{ kind = "categorical", columns = ["click"] }"#, "column `click` is the label of a task"),
    ] {
        refused(&format!("{USER}, {feature}"), CLICK, want);
    }
}

#[test]
fn shared_tables_agree_on_width_and_count() {
    let wide = r#"{ kind = "categorical", columns = ["a"], dim = 8, min_count = 2 }"#;
    let other_dim = r#"{ kind = "categorical", columns = ["b"], dim = 4, table = "a" }"#;
    refused(
        &format!("{wide}, {other_dim}"),
        CLICK,
        "features[1].dim: features that share the table `a` must agree",
    );
    let other_count = r#"{ kind = "categorical", columns = ["b"], min_count = 3, table = "a" }"#;
    refused(&format!("{wide}, {other_count}"), CLICK, "features[1].min_count: features that share");
}

#[test]
fn tasks_that_cannot_be_resolved() {
    refused(USER, "", "tasks: at least one [[tasks]] section is needed");
    for (task, want) in [
        (r#"{ name = "click" }"#, "tasks[1].name: `click` is already the name of a task"),
        (
            r#"{ name = "buy", space = "clck" }"#,
            "tasks[1].space: there is no task `clck`; did you mean `click`?",
        ),
        (r#"{ name = "buy", space = "buy" }"#, "tasks[1].space: task `buy` cannot be its own label space"),
        (r#"{ name = "buy", weight = -1.0 }"#, "tasks[1].weight: -1 is not a weight"),
        (r#"{ name = "buy", positive = ["yes", ""] }"#, "tasks[1].positive: `` is an empty label"),
        (r#"{ name = "buy", weight = nan }"#, "tasks[1].weight: NaN is not a weight"),
        (
            r#"{ name = "buy", after = "clck" }"#,
            "tasks[1].after: there is no task `clck`; did you mean `click`?",
        ),
        (r#"{ name = "buy", after = "buy" }"#, "tasks[1].after: task `buy` cannot come after itself"),
        (
            r#"{ name = "buy", after = "pay" }, { name = "pay", after = "buy" }"#,
            "tasks[1].after: `buy` comes after itself by way of other tasks: break the circle",
        ),
        (
            r#"{ name = "watch", kind = "regression" }, { name = "buy", after = "watch" }"#,
            "tasks[2].after: task `watch` is not binary",
        ),
        (
            r#"{ name = "plays", kind = "poisson" }, { name = "buy", space = "plays" }"#,
            "tasks[2].space: task `plays` is not binary",
        ),
        (
            r#"{ name = "buy", scenario_weights = { home = 2.0 } }"#,
            "tasks[1].scenario_weights: there is no scenario column",
        ),
    ] {
        refused(USER, &format!("{CLICK}, {task}"), want);
    }
    refused(USER, r#"{ name = "click", role = "auxiliary" }"#, "tasks: all are auxiliary");
}

#[test]
fn scenarios_that_have_a_weight_must_exist() {
    let with = |all: &str, own: &str| {
        let weights = toml::from_str(all).unwrap();
        let roles = Roles { scenario_weights: Some(&weights), ..ROLES };
        let text = EVERY_KIND.replace("space =", &format!("scenario_weights = {{ {own} }}\n    space ="));
        let mut fitted = fitter(&text, roles)?;
        for row in ROWS {
            fitted.observe(&row).unwrap();
        }
        fitted.finish()
    };
    let told = |all: &str, own: &str| with(all, own).unwrap_err().to_string();
    let unknown = told("hone = 2.0", "");
    assert!(unknown.contains("data.scenario_weights: no fit row has the scenario `hone`"), "{unknown}");
    assert!(unknown.contains("did you mean `home`?; the scenarios are: `home`, `feed`"), "{unknown}");
    assert!(told("", "shop = 1.0").contains("tasks[1].scenario_weights: no fit row has the scenario `shop`"));
    assert!(told("home = -1.0", "").contains("data.scenario_weights: -1 is not a weight of `home`"));
    assert!(told("", "feed = inf").contains("tasks[1].scenario_weights: inf is not a weight of `feed`"));
    // Those of all tasks and those of one multiply; who has none has none.
    let tasks = with("home = 2.0", "feed = 0.5, home = 3.0").unwrap().schema().tasks.clone();
    assert_eq!([&tasks[0].scenario_weights, &tasks[1].scenario_weights], [&[2.0, 1.0], &[6.0, 0.5]]);
    let tasks = with("", "feed = 0.5").unwrap().schema().tasks.clone();
    assert_eq!([&tasks[0].scenario_weights[..], &tasks[1].scenario_weights], [&[][..], &[1.0, 0.5]]);
}

#[test]
fn the_stand_in_scenario_must_exist() {
    let roles = Roles { unknown_scenario: Some("home"), ..Roles::default() };
    let message = fitter(EVERY_KIND, roles).unwrap_err().to_string();
    assert!(message.contains("data.unknown_scenario: there is no scenario column"), "{message}");
    let mut fitted = fitter(EVERY_KIND, Roles { unknown_scenario: Some("hone"), ..ROLES }).unwrap();
    for row in ROWS {
        fitted.observe(&row).unwrap();
    }
    let message = fitted.finish().unwrap_err().to_string();
    assert!(message.contains("no fit row has the scenario `hone`; did you mean `home`?"), "{message}");
    let message = fitter(EVERY_KIND, ROLES).unwrap().finish().unwrap_err().to_string();
    assert!(message.contains("data.scenario: no fit row was seen"), "{message}");
}
