//! A run folder served from several threads.

use manygate::ndarray::{Array2, array};
use manygate::{Columns, Model, Session, UNKNOWN};
use manygate_downstream::{Ranker, Request, open};
use std::path::Path;
use std::sync::Arc;
use std::thread;

fn fixture() -> Arc<Model> {
    open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixture")).unwrap()
}

const REQUEST: Request<'static> =
    Request { user: "7", history: "1|2", tab: "feed", items: &["0", "1", "2", "3", "14"] };

#[test]
fn text_and_arrays_give_the_same_outputs() {
    let model = fixture();
    let schema = model.encoder.schema();
    let mut batch = model.encoder.empty_batch(2, false);
    model.encoder.encode(&["7", "3", "1|2", "0.25", "search"], &mut batch).unwrap();
    model.encoder.encode(&["19", "14", "", "", "feed"], &mut batch).unwrap();
    let arrays = Columns::new(schema)
        .ids(array![[7_u32, 3], [19, 14]].view())
        .and_then(|c| c.lists("history", &[vec![1_u64, u64::from(UNKNOWN), 2], vec![]]))
        .and_then(|c| c.numbers(array![[0.25], [0.0]].view()))
        .and_then(|c| c.scenario(&[1, 0]))
        .and_then(Columns::finish)
        .unwrap();
    assert_eq!(arrays, batch);
    let mut session = Session::new(model, 2).unwrap();
    let outputs = session.predict(&batch).unwrap().to_owned();
    assert_eq!(session.output_names().collect::<Vec<_>>(), ["click", "buy"]);
    assert!(outputs.iter().all(|&p| p > 0.0 && p < 1.0), "{outputs}");
    let mut transposed = Array2::zeros((2, 2));
    session.predict_into(&arrays, transposed.view_mut().reversed_axes()).unwrap();
    assert_eq!(transposed.t(), outputs);
}

#[test]
fn sessions_on_several_threads_rank_alike() {
    let model = fixture();
    let alone = Ranker::new(Arc::clone(&model), 8).unwrap().best(REQUEST).unwrap().unwrap();
    let rankers = (0..4).map(|_| {
        let mut ranker = Ranker::new(Arc::clone(&model), 8).unwrap();
        thread::spawn(move || [(); 50].map(|()| ranker.best(REQUEST).unwrap().unwrap()))
    });
    for ranker in rankers.collect::<Vec<_>>() {
        assert!(ranker.join().unwrap().iter().all(|best| *best == alone));
    }
}

#[test]
fn a_bad_request_is_an_error_and_the_next_one_is_served() {
    let mut ranker = Ranker::new(fixture(), 5).unwrap();
    let told = |ranker: &mut Ranker, request| ranker.best(request).unwrap_err().to_string();
    let message = told(&mut ranker, Request { user: "20", ..REQUEST });
    assert!(message.contains("column `user`: `20` is not an integer id from 0 to 19"), "{message}");
    let message = told(&mut ranker, Request { tab: "mail", ..REQUEST });
    assert!(message.contains("column `tab`: no fit row has the scenario `mail`"), "{message}");
    let message = told(&mut ranker, Request { items: &["1"; 6], ..REQUEST });
    assert!(message.contains("6 rows, the session was made for 5"), "{message}");
    assert_eq!(ranker.best(Request { items: &[], ..REQUEST }).unwrap(), None);
    assert!(ranker.best(REQUEST).unwrap().is_some());
    assert!(
        Model::open("nowhere".as_ref()).unwrap_err().to_string().contains("there is no folder `nowhere`")
    );
}

#[test]
fn a_run_folder_of_an_earlier_build_predicts_what_it_did() {
    let mut ranker = Ranker::new(fixture(), 8).unwrap();
    let (best, value) = ranker.best(REQUEST).unwrap().unwrap();
    // Instruction sets differ in the last bits.
    assert!(best == 0 && (value - 0.197_071_57).abs() < 1e-5, "item {best} with {value}");
}
