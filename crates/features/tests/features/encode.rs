//! Fitting and encoding, against values worked out by hand.

use crate::support::{EVERY_KIND, ROLES, ROWS, encoder, fitter};
use manygate_features::{ListKind, Pooling, Roles};

#[test]
fn the_schema_follows_the_configuration() {
    let encoder = encoder(ROLES);
    let schema = encoder.schema();
    schema.validate().unwrap();
    let tables: Vec<_> = schema.tables.iter().map(|t| (t.name.as_str(), t.rows, t.dim)).collect();
    assert_eq!(tables, [("user", 4, None), ("item", 4, None), ("hour", 25, Some(4)), ("tag", 3, None)]);
    let fields: Vec<_> = schema.fields.iter().map(|f| (f.name.as_str(), f.rows, f.dim)).collect();
    assert_eq!(fields, [("user", 4, None), ("item", 4, None), ("hour", 25, Some(4))]);
    let bags: Vec<_> =
        schema.bags.iter().map(|b| (b.name.as_str(), b.table.as_str(), b.kind, b.max_length)).collect();
    assert_eq!(bags, [("tag", "tag", ListKind::Bag, None), ("history", "item", ListKind::Sequence, Some(2))]);
    assert_eq!(schema.bags[0].pooling, Pooling::Mean);
    assert_eq!(schema.dense, ["age", "history.length"]);
    let tasks: Vec<_> = schema.tasks.iter().map(|t| (t.name.as_str(), t.weight, t.space)).collect();
    assert_eq!(tasks, [("click", 1.0, None), ("buy", 0.5, Some(0))]);
    assert_eq!(schema.scenarios, ["home", "feed"]);
    assert_eq!(schema.scenario_column.as_deref(), Some("tab"));
    assert_eq!(schema.user.as_deref(), Some("user"));
    assert_eq!(encoder.label_columns(), ["click", "bought"]);
}

#[test]
fn rows_become_ids_lists_numbers_and_labels() {
    let encoder = encoder(ROLES);
    let mut batch = encoder.empty_batch(4, true);
    for (row, labels) in ROWS.iter().zip([["0", "0"], ["1", "0"], ["1", "1"], ["0", "0"]]) {
        encoder.encode(row, &mut batch).unwrap();
        encoder.encode_labels(&labels, &mut batch).unwrap();
    }
    batch.validate().unwrap();
    // Empty text is a value like any other; the fixed id i is row i + 1.
    assert_eq!(batch.ids, [vec![1, 2, 1, 3], vec![1, 2, 3, 1], vec![1, 24, 6, 6]]);
    // `a` was seen once, below its minimum count: dropped. `c` counts once a mention.
    assert_eq!(batch.bags[0].ids, [1, 1, 2, 2, 2]);
    assert_eq!(batch.bags[0].offsets, [0, 1, 3, 3, 5]);
    // The unknown i9 is dropped before the last two are kept.
    assert_eq!(batch.bags[1].offsets, [0, 0, 2, 3, 5]);
    assert_eq!(batch.bags[1].ids, [2, 1, 2, 3, 2]);
    // Mean 20 and deviation 10 of the two ages present; lengths 0, 4, 1, 2 (an empty piece is no value).
    let ages: Vec<f32> = batch.dense.iter().copied().step_by(2).collect();
    assert_eq!(ages, [-1.0, 1.0, 0.0, 0.0]);
    let lengths = [1f64, 5.0, 2.0, 3.0].map(f64::ln);
    let mean = lengths.iter().sum::<f64>() / 4.0;
    let std = (lengths.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
    for (row, x) in lengths.iter().enumerate() {
        assert!((f64::from(batch.dense[2 * row + 1]) - (x - mean) / std).abs() < 1e-6);
    }
    assert_eq!(batch.scenario, [0, 1, 0, 1]);
    assert_eq!(batch.labels, [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
}

/// As where a second list says something of each value of the first.
#[test]
fn unknown_values_keep_their_places_where_that_is_asked() {
    let text = EVERY_KIND.replace("max_length = 2", "max_length = 3\n    keep_unknown = true");
    let mut fitter = fitter(&text, ROLES).unwrap();
    ROWS.iter().for_each(|row| fitter.observe(row).unwrap());
    let encoder = fitter.finish().unwrap();
    let mut batch = encoder.empty_batch(4, false);
    ROWS.iter().for_each(|row| encoder.encode(row, &mut batch).unwrap());
    batch.validate().unwrap();
    // i9 is row 0, that of all unknown values; an empty piece is none. A bag still drops them.
    assert_eq!(batch.bags[1].offsets, [0, 0, 3, 4, 6]);
    assert_eq!(batch.bags[1].ids, [0, 2, 1, 2, 3, 2]);
    assert_eq!(batch.bags[0].ids, [1, 1, 2, 2, 2]);
}

/// The scenario as a feature like any other: its column is read once, for both.
#[test]
fn the_column_of_scenarios_may_be_a_feature() {
    let text = EVERY_KIND.replace("\"user\", \"item\"", "\"user\", \"item\", \"tab\"");
    let mut fitter = fitter(&text, ROLES).unwrap();
    assert_eq!(fitter.columns(), ["user", "item", "tab", "hour", "tag", "history", "age"]);
    let rows =
        ROWS.map(|[user, item, hour, tag, history, age, tab]| [user, item, tab, hour, tag, history, age]);
    rows.iter().for_each(|row| fitter.observe(row).unwrap());
    let encoder = fitter.finish().unwrap();
    let mut batch = encoder.empty_batch(4, false);
    rows.iter().for_each(|row| encoder.encode(row, &mut batch).unwrap());
    assert_eq!((&batch.ids[2][..], &batch.scenario[..]), (&[1, 2, 1, 2][..], &[0, 1, 0, 1][..]));
}

#[test]
fn what_no_fit_row_has_is_unknown() {
    let encoder = encoder(ROLES);
    let mut batch = encoder.empty_batch(1, false);
    encoder.encode(&["eve", "i9", "7", "z,a", "i9|i8", "20", "home"], &mut batch).unwrap();
    assert_eq!(batch.ids, [[0], [0], [8]]);
    assert!(batch.bags.iter().all(|bag| bag.ids.is_empty()));
    assert!(batch.labels.is_empty());
    let item = encoder.schema().table_index("item").unwrap();
    assert_eq!((encoder.table_row(item, "i3"), encoder.table_row(item, "i4")), (Ok(3), Ok(0)));
}

#[test]
fn an_unseen_scenario_is_an_error_unless_one_stands_in() {
    let mut row = ROWS[0];
    row[6] = "search";
    let strict = encoder(ROLES);
    let error = strict.encode(&row, &mut strict.empty_batch(1, false)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column `tab`: no fit row has the scenario `search`, only `home`, `feed`: correct the file, or set \
         `data.unknown_scenario` to the scenario that stands in for unseen ones"
    );
    let lenient = encoder(Roles { unknown_scenario: Some("feed"), ..ROLES });
    let mut batch = lenient.empty_batch(1, false);
    lenient.encode(&row, &mut batch).unwrap();
    assert_eq!(batch.scenario, [1]);
}

#[test]
fn unusable_cells_are_named() {
    let encoder = encoder(ROLES);
    for (cell, value, want) in [
        (2, "24", "column `hour`: `24` is not an integer id from 0 to 23"),
        (2, "noon", "column `hour`: `noon` is not an integer id"),
        (5, "old", "column `age`: `old` is not a number"),
        (5, "inf", "column `age`: `inf` is not a finite number"),
    ] {
        let mut row = ROWS[0];
        row[cell] = value;
        let error = encoder.encode(&row, &mut encoder.empty_batch(1, false)).unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
        let mut fitter = fitter(EVERY_KIND, ROLES).unwrap();
        assert_eq!(
            fitter.observe(&row).is_err(),
            cell == 5,
            "statistics need numbers, ids are checked when encoded"
        );
    }
    let error = encoder.encode_labels(&["0", "2"], &mut encoder.empty_batch(1, true)).unwrap_err();
    assert!(
        error.to_string().starts_with("column `bought`: `2` is not a label of the binary task `buy`"),
        "{error}"
    );
    let placed = error.at("rows.csv", Some(7)).to_string();
    assert!(placed.starts_with("rows.csv:7: column `bought`: `2`"), "{placed}");
}

#[test]
fn texts_of_one_column_are_the_labels_of_two_tasks() {
    let text = r#"
        features = [{ kind = "categorical", columns = ["user"] }]
        tasks = [
            { name = "unmarried", column = "status", positive = ["single", "widowed"] },
            { name = "widowed", column = "status", positive = ["widowed"] },
        ]
    "#;
    let mut fitter = fitter(text, Roles::default()).unwrap();
    fitter.observe(&["ann"]).unwrap();
    let encoder = fitter.finish().unwrap();
    assert_eq!(encoder.label_columns(), ["status", "status"]);
    let mut batch = encoder.empty_batch(3, true);
    for status in ["single", "married", "widowed"] {
        encoder.encode(&["ann"], &mut batch).unwrap();
        encoder.encode_labels(&[status, status], &mut batch).unwrap();
    }
    assert_eq!(batch.labels, [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]);
    let error = encoder.encode_labels(&["", ""], &mut batch).unwrap_err();
    assert!(error.to_string().starts_with("column `status`: the label of the task `unmarried` is empty"));
}

#[test]
fn a_constant_or_absent_number_is_zero() {
    let text = r#"
        features = [{ kind = "numeric", columns = ["same", "never"] }]
        tasks = [{ name = "click" }]
    "#;
    let mut fitter = fitter(text, Roles::default()).unwrap();
    for _ in 0..3 {
        fitter.observe(&["1e9", ""]).unwrap();
    }
    let encoder = fitter.finish().unwrap();
    let mut batch = encoder.empty_batch(1, false);
    encoder.encode(&["1e9", ""], &mut batch).unwrap();
    encoder.encode(&["1000000002", "5"], &mut batch).unwrap();
    assert_eq!(batch.dense, [0.0, 0.0, 2.0, 5.0]);
}

#[test]
fn a_raw_number_is_taken_as_it_is() {
    let text = r#"
        features = [{ kind = "numeric", columns = ["weight"], transform = "raw" }]
        tasks = [{ name = "click" }]
    "#;
    let mut fitter = fitter(text, Roles::default()).unwrap();
    ["1", "4"].iter().for_each(|cell| fitter.observe(&[cell]).unwrap());
    let encoder = fitter.finish().unwrap();
    let mut batch = encoder.empty_batch(2, false);
    ["2.5", ""].iter().for_each(|cell| encoder.encode(&[cell], &mut batch).unwrap());
    assert_eq!(batch.dense, [2.5, 0.0]);
}

#[test]
fn whole_cells_and_their_parts_have_tables_of_their_own() {
    let text = r#"
        features = [
            { kind = "bag", columns = ["tag"], separator = "," },
            { kind = "categorical", columns = ["tag"] },
            { kind = "sequence", columns = ["seen"], separator = ",", max_length = 9 },
            { kind = "sequence", columns = ["liked"], separator = ",", max_length = 9, table = "seen", dim = 3 },
        ]
        tasks = [{ name = "click" }]
    "#;
    let mut fitter = fitter(text, Roles::default()).unwrap();
    assert_eq!(fitter.columns(), ["tag", "seen", "liked"]);
    fitter.observe(&["x,y", "a,b", "c,a"]).unwrap();
    let encoder = fitter.finish().unwrap();
    let tables: Vec<_> = encoder.schema().tables.iter().map(|t| (t.name.as_str(), t.rows, t.dim)).collect();
    // Without a categorical column every list adds to the vocabulary.
    assert_eq!(tables, [("tag", 2, None), ("tag.values", 3, None), ("seen", 4, Some(3))]);
}

#[test]
fn hashed_values_need_no_vocabulary() {
    let text = r#"
        features = [
            { kind = "categorical", columns = ["user"], hash = 1000 },
            { kind = "bag", columns = ["tag"], separator = ",", hash = 50 },
            { kind = "sequence", columns = ["seen"], separator = "|", max_length = 2, table = "user" },
        ]
        tasks = [{ name = "click" }]
    "#;
    let mut fitter = fitter(text, Roles::default()).unwrap();
    fitter.observe(&["ann", "x,y", "bob"]).unwrap();
    let encoder = fitter.finish().unwrap();
    let tables: Vec<_> = encoder.schema().tables.iter().map(|t| (t.name.as_str(), t.rows)).collect();
    assert_eq!(tables, [("user", 1001), ("tag", 51)]);
    let mut batch = encoder.empty_batch(2, false);
    encoder.encode(&["ann", "never,seen,never", "bob||ann|eve"], &mut batch).unwrap();
    encoder.encode(&["", "", ""], &mut batch).unwrap();
    let user = |name| encoder.table_row(0, name).unwrap();
    // An empty cell is a value like any other; an empty piece of a list is none. Nothing is the unknown row.
    assert_eq!(batch.ids, [[user("ann"), user("")]]);
    assert!(user("") > 0);
    assert_eq!(batch.bags[0].row(0).len(), 3);
    assert_eq!(batch.bags[0].row(0)[0], batch.bags[0].row(0)[2]);
    assert_eq!(batch.bags[1].row(0), [user("ann"), user("eve")]);
    assert!(batch.bags.iter().all(|bag| bag.row(1).is_empty() && !bag.ids.contains(&0)));
}

#[test]
fn numbers_fall_into_buckets() {
    let text = r#"
        features = [
            { kind = "bucket", columns = ["age"], boundaries = [18.0, 65.0], missing = ["?"] },
            { kind = "bucket", columns = ["price"], quantiles = 4, dim = 3 },
            { kind = "numeric", columns = ["price"] },
        ]
        tasks = [{ name = "click" }]
    "#;
    let mut fitter = fitter(text, Roles::default()).unwrap();
    assert_eq!(fitter.columns(), ["age", "price"]);
    for price in ["1", "2", "3", "4", "", "5", "6", "7", "8"] {
        fitter.observe(&["?", price]).unwrap();
    }
    let message = fitter.observe(&["?", "dear"]).unwrap_err().to_string();
    assert!(message.starts_with("column `price`: `dear` is not a number: correct the file"), "{message}");
    let encoder = fitter.finish().unwrap();
    let tables: Vec<_> = encoder.schema().tables.iter().map(|t| (t.name.as_str(), t.rows, t.dim)).collect();
    // Unknown and missing, then the buckets; the quartiles begin at 3, 5 and 7.
    assert_eq!(tables, [("age", 5, None), ("price", 6, Some(3))]);
    let mut batch = encoder.empty_batch(4, false);
    for row in [["17.9", "-9"], ["18", "3"], ["65", "100"], ["?", ""]] {
        encoder.encode(&row, &mut batch).unwrap();
    }
    assert_eq!(batch.ids, [[2, 3, 4, 1], [2, 3, 5, 1]]);
    let message = encoder.encode(&["old", "1"], &mut encoder.empty_batch(1, false)).unwrap_err().to_string();
    assert!(message.starts_with("column `age`: `old` is not a number"), "{message}");
}
