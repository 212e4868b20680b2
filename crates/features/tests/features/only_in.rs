//! Columns that some scenarios have: elsewhere their cells are not read.

use crate::support::fitter;
use manygate_features::{ListKind, Pooling, Roles};

const ROLES: Roles<'_> =
    Roles { scenario: Some("tab"), user: None, unknown_scenario: None, scenario_weights: None };

const TEXT: &str = r#"
    features = [
        { kind = "categorical", columns = ["item"] },
        { kind = "categorical", columns = ["query"], only_in = ["tab=search"] },
        { kind = "numeric", columns = ["length"], only_in = ["tab=search", "tab=shop"] },
        { kind = "bag", columns = ["tags"], separator = "|", only_in = ["tab=feed"] },
    ]
    tasks = [{ name = "click" }]
"#;

/// item, query, tags, length, tab: cells of other scenarios hold what would be wrong there.
const ROWS: [[&str; 5]; 4] = [
    ["i1", "red", "ignored", "2", "search"],
    ["i2", "ignored", "a|b", "no number", "feed"],
    ["i1", "", "ignored", "4", "search"],
    ["i3", "ignored", "b", "6", "shop"],
];

#[test]
fn a_sample_of_another_scenario_has_zeros_in_their_place() {
    let mut fitter = fitter(TEXT, ROLES).unwrap();
    assert_eq!(fitter.columns(), ["item", "query", "tags", "length", "tab"]);
    ROWS.iter().for_each(|row| fitter.observe(row).unwrap());
    let encoder = fitter.finish().unwrap();
    let schema = encoder.schema();
    assert_eq!(schema.fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["item"]);
    let bags: Vec<_> = schema.bags.iter().map(|b| (b.name.as_str(), b.kind, b.pooling)).collect();
    assert_eq!(bags, [("query", ListKind::Bag, Pooling::Sum), ("tags", ListKind::Bag, Pooling::Mean)]);
    // `red`, and the empty query, which is a value like any other; a and b.
    let rows: Vec<_> = schema.tables.iter().map(|t| (t.name.as_str(), t.rows)).collect();
    assert_eq!(rows, [("item", 4), ("query", 3), ("tags", 3)]);

    let folder = tempfile::tempdir().unwrap();
    encoder.save(folder.path()).unwrap();
    let encoder = manygate_features::Encoder::load(folder.path()).unwrap();
    let mut batch = encoder.empty_batch(4, false);
    ROWS.iter().for_each(|row| encoder.encode(row, &mut batch).unwrap());
    batch.validate().unwrap();
    assert_eq!((&batch.bags[0].ids[..], &batch.bags[0].offsets[..]), (&[1, 2][..], &[0, 1, 1, 2, 2][..]));
    assert_eq!((&batch.bags[1].ids[..], &batch.bags[1].offsets[..]), (&[1, 2][..], &[0, 0, 2, 2, 2][..]));
    // Mean 4 of the three that are there.
    assert_eq!((batch.dense[1], batch.dense[2]), (0.0, 0.0));
    assert!(batch.dense[0] < 0.0 && batch.dense[3] > 0.0, "{:?}", batch.dense);
}

#[test]
fn scenarios_that_cannot_be_meant_are_told() {
    let told = |text: &str, roles| {
        let fitter = fitter(text, roles).map(|mut fitter| {
            ROWS.iter().for_each(|row| fitter.observe(row).unwrap());
            fitter.finish().map(|_| ())
        });
        fitter.and_then(|finished| finished).unwrap_err().to_string()
    };
    let no_column = told(TEXT, Roles::default());
    assert!(no_column.contains("features[1].only_in: there is no scenario column"), "{no_column}");
    let other = told(&TEXT.replace("tab=search\"]", "page=search\"]"), ROLES);
    assert!(other.contains("`page=search` is no scenario: write `tab=value`"), "{other}");
    let unseen = told(&TEXT.replace("tab=feed", "tab=fed"), ROLES);
    assert!(unseen.contains("features.only_in: no fit row has the scenario `fed`"), "{unseen}");
    assert!(unseen.contains("feed"), "{unseen}");
}
