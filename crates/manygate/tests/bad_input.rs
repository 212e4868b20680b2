//! Whatever a caller hands in, the answer is an error that names the place, and the next call works.

use manygate::ndarray::{Array2, array};
use manygate::{Bag, Batch, Columns, Model, Pooling, Schema, Serial, Session};
use std::sync::Arc;

fn model() -> Arc<Model> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/downstream/fixture");
    Arc::new(Model::open(folder.as_ref()).unwrap())
}

/// Three rows that fit the model.
fn batch(model: &Model) -> Batch {
    let mut batch = model.encoder.empty_batch(3, false);
    for cells in
        [["7", "3", "1|2", "0.4", "feed"], ["0", "0", "", "-1", "search"], ["9", "9", "9", "", "feed"]]
    {
        model.encoder.encode(&cells, &mut batch).unwrap();
    }
    batch
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    type Breaker = fn(&mut Batch);
    let breakers: [(&str, Breaker); 19] = [
        ("the batch has no rows", |b| b.truncate(0)),
        ("id column 0 has 3 values, 2 are needed", |b| b.rows = 2),
        ("id column 0 has 3 values", |b| b.rows = 4),
        ("rows, the session was made for 4", |b| b.rows = usize::MAX),
        ("the batch has 1 id columns, the model reads 2", |b| b.ids.truncate(1)),
        ("the batch has 0 bags, the model reads 1", |b| b.bags.clear()),
        ("id column 1 has 2 values, 3 are needed", |b| b.ids[1].truncate(2)),
        ("id column 1 has id 16 at position 2, `embedding.item.weight` has 16 rows", |b| b.ids[1][2] = 16),
        ("id column 0 has id 4294967295", |b| b.ids[0][0] = u32::MAX),
        ("bag 0 has id 999", |b| b.bags[0].ids[0] = 999),
        ("offsets of bag 0", |b| b.bags[0].offsets = Vec::new()),
        ("offsets of bag 0 do not rise", |b| b.bags[0].offsets = vec![0, 2, 1, 3]),
        ("offsets of bag 0 do not rise", |b| b.bags[0].offsets = vec![0, 2, 2, 9]),
        ("offsets of bag 0 do not rise", |b| b.bags[0] = Bag { offsets: vec![1; 4], ids: vec![1] }),
        ("the dense matrix has 3 values, 6 are needed", |b| b.dense_width = 2),
        ("the dense matrix", |b| b.dense_width = usize::MAX),
        ("numbers a row", |b| {
            b.dense_width = 0;
            b.dense.clear();
        }),
        ("number 0 of row 1 is NaN", |b| b.dense[1] = f32::NAN),
        ("number 0 of row 2 is inf", |b| b.dense[2] = f32::INFINITY),
    ];
    let model = model();
    let mut session = Session::new(Arc::clone(&model), 4).unwrap();
    let expected = session.predict(&batch(&model)).unwrap().to_owned();
    for (want, break_it) in breakers {
        let mut broken = batch(&model);
        break_it(&mut broken);
        let message = session.predict(&broken).unwrap_err().to_string();
        assert!(message.contains(want), "{message} instead of {want}");
        assert_eq!(session.predict(&batch(&model)).unwrap(), expected, "after {want}");
        let mut predictor = model.predictor(&Serial, 2).unwrap();
        // In parts, it is the part that does not fit.
        predictor.predict_all(&Serial, &broken).map(drop).err();
    }
}

#[test]
fn outputs_that_are_not_finite_are_told() {
    let model = model();
    let config: manygate::toml::Table =
        include_str!("../../../tests/downstream/fixture/config.toml").parse().unwrap();
    let (entry, architecture) = manygate::models::from_table(config["model"].as_table().unwrap()).unwrap();
    let mut weights = model.weights().clone();
    weights.params.values.fill(f32::NAN);
    let damaged = Model::new(entry.name, architecture.as_ref(), model.encoder.clone(), weights).unwrap();
    let message =
        Session::new(Arc::new(damaged), 4).unwrap().predict(&batch(&model)).unwrap_err().to_string();
    assert!(
        message.contains("output click: is NaN for row 0: the weights are damaged, or an input"),
        "{message}"
    );
}

#[test]
fn places_for_outputs_must_have_their_shape() {
    let model = model();
    let batch = batch(&model);
    let mut session = Session::new(Arc::clone(&model), 4).unwrap();
    let mut narrow = Array2::from_elem((3, 1), 7.0);
    let message = session.predict_into(&batch, narrow.view_mut()).unwrap_err().to_string();
    assert!(message.contains("the place for the outputs is (3, 1), (3, 2) is needed"), "{message}");
    assert!(narrow.iter().all(|&v| v == 7.0));
    let mut predictor = model.predictor(&Serial, 4).unwrap();
    let mut columns = vec![vec![5.0]; 3];
    let message = predictor.predict(&Serial, &batch, &mut columns).unwrap_err().to_string();
    assert!(message.contains("3 columns to write, the model has 2 outputs"), "{message}");
    assert_eq!(columns, vec![vec![5.0]; 3]);
    let message = predictor.predict_into(&Serial, &batch, &mut [0.0; 5]).unwrap_err().to_string();
    assert!(message.contains("5 values to write, 3 rows with 2 outputs"), "{message}");
}

#[test]
fn sessions_of_senseless_sizes_are_refused() {
    for capacity in [0, usize::MAX] {
        let message = Session::new(model(), capacity).unwrap_err().to_string();
        assert!(message.contains(&format!("capacity: {capacity} rows at a time")), "{message}");
    }
}

#[test]
fn rows_that_cannot_be_encoded_leave_the_batch_as_it_was() {
    let model = model();
    let (before, mut after) = (batch(&model), batch(&model));
    let mut told = |cells: &[&str]| {
        let message = model.encoder.encode(cells, &mut after).unwrap_err().to_string();
        assert_eq!(after, before);
        message
    };
    assert!(told(&[]).contains("column `user`: the row has 0 cells, 5 are needed"));
    assert!(told(&["1", "2", "3"]).contains("column `age`: the row has 3 cells"));
    assert!(told(&["1", "2", "3|x", "0", "feed"]).contains("column `history`: `x` is not an integer id"));
    assert!(told(&["1", "2", "3", "NaN", "feed"]).contains("column `age`: `NaN` is not a finite number"));
    assert!(told(&["1", "2", "3", "0", "mail"]).contains("column `tab`"));
    let message = model.encoder.encode(&["1"; 5], &mut Batch::default()).unwrap_err().to_string();
    assert!(message.contains("the batch is one of another schema"), "{message}");
    assert!(model.encoder.table_row(7, "1").unwrap_err().contains("there is no table number 7"));
}

#[test]
fn arrays_that_do_not_fit_name_row_column_and_value() {
    let schema = Schema::default()
        .field("user", 5)
        .field("item", 3)
        .sequence("history", "item", 2)
        .bag("tags", 4, Pooling::Sum)
        .number("age")
        .scenarios("tab", ["feed", "search"])
        .task("click");
    let columns = || Columns::new(&schema);
    let told = |result: manygate::Result<Columns<'_>>| result.unwrap_err().to_string();
    let ids = |ids: Array2<u64>| columns().ids(ids.view()).map_err(|e| e.to_string());
    assert_eq!(
        ids(array![[0, 0], [4, 3]]).unwrap_err(),
        "ids of `item`: row 1 has 3, which is not an id from 0 to 2"
    );
    assert!(ids(array![[u64::MAX, 0]]).unwrap_err().contains("row 0 has 18446744073709551615"));
    assert!(ids(array![[1, 2, 3]]).unwrap_err().contains("ids: is [1, 3], [rows, 2] is needed"));
    assert!(told(columns().list("histroy", &[0], &[0_u32; 0])).contains("it has: history, tags"));
    for offsets in [&[][..], &[0, 1], &[0, 3, 2], &[1, 2]] {
        assert!(told(columns().list("tags", offsets, &[0_u32, 1])).contains("do not rise from 0 to 2"));
    }
    assert_eq!(
        told(columns().lists("tags", &[vec![0_u32], vec![1, 4]])),
        "list of `tags`: row 1 has 4, which is not an id from 0 to 3"
    );
    let message = told(columns().numbers(array![[0.0], [f32::NAN]].view()));
    assert_eq!(message, "numbers of `age`: row 1 has NaN, which is not a finite number");
    assert_eq!(told(columns().scenario(&[0, 2])), "scenario: row 1 has 2, the schema has 2 scenarios");
    let message = told(columns().labels(array![[0.5]].view()));
    assert!(message.contains("labels of `click`: row 0 has 0.5 is not a label"), "{message}");
    let message = told(columns().scenario(&[0, 1]).and_then(|c| c.numbers(array![[0.0]].view())));
    assert!(message.contains("numbers: 1 rows, what was given before has 2"), "{message}");
    let message = columns().scenario(&[0]).and_then(Columns::finish).unwrap_err().to_string();
    assert!(message.contains("the ids of the schema are missing"), "{message}");

    // Of a sequence the last known ids stay.
    let whole = columns()
        .ids(array![[4_u32, 2]].view())
        .and_then(|c| c.lists("history", &[[0_u32, 1, manygate::UNKNOWN, 2]]))
        .and_then(|c| c.list("tags", &[0, 1], &[3_u32]))
        .and_then(|c| c.numbers(array![[1.5]].view()))
        .and_then(|c| c.scenario(&[1]))
        .and_then(Columns::finish)
        .unwrap();
    assert_eq!((whole.bags[0].row(0), whole.bags[1].row(0)), (&[2, 3][..], &[4][..]));
    // The memory of a batch serves the next one.
    let again = Columns::refill(&schema, whole).ids(array![[1_u32, 1]].view());
    let again = again.and_then(|c| c.scenario(&[0])).and_then(Columns::finish).unwrap_err().to_string();
    assert!(again.contains("the ids of the list `history` of the schema are missing"), "{again}");
}
