//! What is said of files that the tests write themselves.

use std::path::PathBuf;

use crate::support::{Config, gzip, write, zstd};
use manygate_core::Result;
use manygate_data::describe::{Column, DescribeOptions, Description, Kind, describe};
use manygate_data::load;
use serde::Deserialize;

/// Rows with a column of every kind.
fn rows(count: usize) -> String {
    let mut text = String::from(
        "row,user_id,tab,price,stars,flag,tags,hist_items,time,play_time_ms,paid,note,buy,is_click\n",
    );
    for i in 0..count {
        let click = usize::from(i % 3 == 0);
        let price = if i % 10 == 9 { "NA".to_owned() } else { format!("{}.5", i * i % 977) };
        text += &format!(
            "r{i},u{},{},{price},{},{},\"{}\",{},{},{},{},same,{},{click}\n",
            i % 50,
            ["home", "feed"][i % 2],
            i % 5,
            i / 2 % 2,
            ["a,b", "c", ""][i % 3],
            ["1|2|3", "4", ""][i % 3],
            1_700_000_000 + i,
            i % 900,
            click * (i + 1),
            usize::from(i % 12 == 0),
        );
    }
    text
}

fn described(files: &[PathBuf], options: &DescribeOptions) -> Result<Description> {
    describe(files, options, &mut |_| {})
}

fn column<'a>(description: &'a Description, name: &str) -> &'a Column {
    description.columns.iter().find(|column| column.name == name).unwrap()
}

/// The sections of a suggested configuration, and the model.
#[derive(Deserialize)]
struct Suggested {
    model: toml::Table,
    data: manygate_data::DataConfig,
    features: Vec<manygate_features::FeatureConfig>,
    tasks: Vec<manygate_features::TaskConfig>,
}

#[test]
fn columns_are_told_and_the_configuration_loads() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.csv", rows(600));
    let found = described(&[file], &DescribeOptions::default()).unwrap();
    assert_eq!((found.rows, found.complete, found.scenario.as_deref()), (600, true, Some("tab")));
    let kinds: Vec<Kind> = found.columns.iter().map(|c| c.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Unique,
            Kind::Categorical,
            Kind::Categorical,
            Kind::Numeric,
            Kind::Categorical,
            Kind::Binary,
            Kind::List { separator: ',', longest: 2 },
            Kind::List { separator: '|', longest: 3 },
            Kind::Time,
            Kind::Numeric,
            Kind::Numeric,
            Kind::Constant,
            Kind::Binary,
            Kind::Binary,
        ]
    );
    let price = column(&found, "price");
    assert!((price.missing - 0.1).abs() < 1e-12 && price.least == Some(0.5));
    assert_eq!(column(&found, "user_id").examples, ["u0", "u1", "u2"]);
    assert_eq!(column(&found, "user_id").distinct.count, 50);

    let labels: Vec<_> = found.labels.iter().map(|l| (l.label.as_str(), l.scenarios.len())).collect();
    assert_eq!(labels, [("buy", 2), ("is_click", 2)]);
    assert!((found.labels[1].rate - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!((found.labels[0].scenarios[0].rate, found.labels[0].scenarios[1].rate), (1.0 / 6.0, 0.0));

    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    assert!(found.warnings[1].starts_with("`paid` nearly tells `is_click` (correlation 1.00)"));
    for line in
        ["row, its values are all different", "play_time_ms, by its name", "paid, it nearly tells `is_click`"]
    {
        assert!(found.config.contains(&format!("# left out: {line}")), "{}", found.config);
    }
    let Suggested { model, data, features, tasks } = toml::from_str(&found.config).unwrap();
    assert_eq!(model["name"].as_str(), Some("mmoe"));
    let splits = load(&data, &features, &tasks, &mut |_| {}).unwrap();
    let schema = splits.encoder.schema();
    let names: Vec<&str> = schema.fields.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["user_id", "tab", "stars", "flag"]);
    assert_eq!(schema.dense, ["price"]);
    assert_eq!(schema.bags.iter().map(|b| b.max_length).collect::<Vec<_>>(), [None, Some(3)]);
    assert_eq!((schema.user.as_deref(), data.time.as_deref()), (Some("user_id"), Some("time")));
    assert_eq!(splits.fit.batch.rows, 540);
}

#[test]
fn several_files_of_any_compression_and_the_first_rows_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = rows(100);
    write(folder.path(), "d1.csv.gz", gzip(text.as_bytes()));
    write(folder.path(), "d2.csv.zst", zstd(text.as_bytes()));
    let names = [folder.path().join("d*.csv.*")];
    let found = described(&names, &DescribeOptions::default()).unwrap();
    assert_eq!((found.files.len(), found.rows), (2, 200));
    let few = DescribeOptions { rows: Some(120), ..DescribeOptions::default() };
    let found = described(&names, &few).unwrap();
    assert_eq!((found.rows, found.complete), (120, false));
    let all = DescribeOptions { rows: Some(200), ..DescribeOptions::default() };
    assert!(described(&names, &all).unwrap().complete);
}

#[test]
fn columns_named_by_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let file = [write(folder.path(), "a.csv", rows(60))];
    let options = |scenario: Option<&str>, labels: &[&str]| DescribeOptions {
        scenario: scenario.map(str::to_owned),
        labels: labels.iter().map(|label| label.to_string()).collect(),
        rows: None,
    };
    let found = described(&file, &options(Some("stars"), &["flag"])).unwrap();
    assert_eq!(found.labels.len(), 1);
    assert_eq!((found.labels[0].label.as_str(), found.labels[0].scenarios.len()), ("flag", 5));
    assert_eq!(column(&found, "is_click").left_out.as_deref(), Some("it reads like a label"));
    let message = |options| described(&file, &options).unwrap_err().to_string();
    assert!(
        message(options(None, &["stars"]))
            .contains("--label: `stars` has other values than 0 and 1: 0, 1, 2")
    );
    assert!(message(options(None, &["clicks"])).contains("column `clicks`: there is no such column"));
    let many = described(&[write(folder.path(), "b.csv", rows(600))], &options(Some("row"), &[]));
    assert!(many.unwrap_err().to_string().contains("--scenario: `row` has more than 64 values"));
}

#[test]
fn files_without_labels_or_rows() {
    let folder = tempfile::tempdir().unwrap();
    let of = |text: &str| described(&[write(folder.path(), "a.csv", text)], &DescribeOptions::default());
    let none = of("a,b\nx,1.5\ny,2.5\n").unwrap();
    assert!(
        none.labels.is_empty() && none.warnings[0].contains("needs a label column"),
        "{:?}",
        none.warnings
    );
    assert!(toml::from_str::<Suggested>(&none.config).unwrap().tasks.is_empty());
    let one = of("a,b\n1,0\n").unwrap();
    assert_eq!(one.rows, 1);
    let guessed = of("a,good\nx,1\ny,0\n").unwrap();
    assert!(guessed.warnings[0].contains("the last one, `good`, is taken"), "{:?}", guessed.warnings);
    assert!(of("a,b\n").unwrap_err().to_string().contains("a header and no rows"));
    let message = described(&[write(folder.path(), "l.csv", b"a\nb\n\xff\n")], &DescribeOptions::default());
    assert!(message.unwrap_err().to_string().contains("l.csv:3: column `a`: the value is not UTF-8 text"));
}

#[test]
fn thousands_of_columns() {
    let folder = tempfile::tempdir().unwrap();
    let line = |of: &dyn Fn(usize) -> String| (0..5000).map(of).collect::<Vec<_>>().join(",") + "\n";
    let mut text = line(&|c| if c == 0 { "click".into() } else { format!("c{c}") });
    for row in 0..40 {
        text += &line(&|c| if c == 0 { (row % 2).to_string() } else { format!("{}", (row * 7 + c) % 11) });
    }
    let file = write(folder.path(), "wide.csv", text);
    let found = described(&[file], &DescribeOptions::default()).unwrap();
    let Suggested { data, features, tasks, .. } = toml::from_str(&found.config).unwrap();
    let config = Config { data, features, tasks };
    let splits = crate::support::splits(&config).unwrap();
    assert_eq!(splits.fit.batch.ids.len(), 4999);
}
