//! Splits: which rows are where, and that the fit rows alone decide the encoding.

use crate::support::{TRAIN, config, gzip, splits, write};
use manygate_data::{ValidConfig, encode_file, load};

#[test]
fn vocabularies_and_statistics_come_from_the_fit_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&write(folder.path(), "train.csv", TRAIN));
    let test = "tab,click,user,age,tags,time,more\nfeed,1,eve,20,\"z,x\",9,?\nhome,0,zoe,40,y,9,?\n";
    config.data.test = vec![write(folder.path(), "test.csv", test)];
    let splits = splits(&config).unwrap();
    let schema = splits.encoder.schema();
    assert_eq!(schema.tables.iter().map(|table| table.rows).collect::<Vec<_>>(), [3, 3], "ann, bob; x, y");
    assert_eq!(schema.scenarios, ["home", "feed"]);
    assert_eq!(schema.user.as_deref(), Some("user"));

    let (fit, valid, test) = (splits.fit, splits.valid, splits.test.unwrap());
    for part in [&fit, &valid, &test] {
        part.batch.validate().unwrap();
        assert_eq!(part.users.len(), part.batch.rows);
    }
    assert_eq!(fit.batch.ids, [[1, 2, 1]]);
    assert_eq!(fit.batch.dense, [-1.0, 1.0, 0.0]);
    assert_eq!(fit.batch.bags[0].ids, [1, 2, 2]);
    assert_eq!(fit.batch.scenario, [0, 1, 0]);
    assert_eq!(fit.batch.labels, [[1.0, 0.0, 0.0]]);
    assert_eq!(fit.users, [0, 2, 0]);
    assert_eq!((valid.batch.ids, valid.batch.dense), (vec![vec![0]], vec![98.0]));
    assert!(valid.batch.bags[0].ids.is_empty());
    // A user that the fit rows do not have is still one group.
    assert_eq!((valid.users, test.users), (vec![1], vec![1, 3]));
    assert_eq!((test.batch.ids, test.batch.dense), (vec![vec![0, 0]], vec![0.0, 2.0]));
    assert_eq!(test.batch.labels, [[1.0, 0.0]]);
}

#[test]
fn the_last_fraction_is_rounded_down_over_all_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&write(folder.path(), "a.csv", TRAIN));
    config.data.train.push(write(folder.path(), "b.csv.gz", gzip(TRAIN.as_bytes())));
    config.data.valid = ValidConfig::LastFraction(0.3);
    config.data.time = None;
    let mut told = Vec::new();
    let splits = load(&config.data, &config.features, &config.tasks, &mut |rows| told.push(rows)).unwrap();
    assert_eq!(told, [8, 16], "two passes over eight rows");
    assert_eq!((splits.fit.batch.rows, splits.valid.batch.rows), (6, 2));
    assert!(splits.test.is_none());
    assert_eq!(splits.valid.batch.ids, [[3, 1]], "bob and ann, the last two");
    let rows: Vec<u32> = splits.fit.batch.ids[0].clone();
    assert_eq!(rows, [1, 2, 3, 1, 1, 2], "in the order of the files");
}

#[test]
fn encoding_a_file_again_gives_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "train.csv", TRAIN);
    let splits = splits(&config(&path)).unwrap();
    let all = encode_file(&splits.encoder, &[path], true, &mut |_| {}).unwrap();
    let mut fit = manygate_core::Batch::empty_like(&all.batch);
    fit.gather(&all.batch, &[0, 2, 3]);
    assert_eq!(fit, splits.fit.batch);
    assert_eq!(all.users, [0, 1, 2, 0]);
}

#[test]
fn labels_that_contradict_an_order_are_counted_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let train = "day,user,age,tags,tab,time,click,buy,spent\n\
        1,ann,10,,home,1,1,1,2.5\n\
        1,bob,20,,home,2,0,1,0\n\
        2,bob,20,,feed,3,0,0,-1.5\n\
        1,eve,30,,feed,4,0,1,3\n";
    let mut config = config(&write(folder.path(), "train.csv", train));
    let test =
        write(folder.path(), "test.csv", "user,age,tags,tab,time,click,buy,spent\nann,10,,home,5,0,1,0\n");
    config.data.test = vec![test.clone()];
    let tasks = r#"tasks = [
        { name = "click" },
        { name = "buy", after = "click" },
        { name = "spent", kind = "regression", after = "buy" },
    ]"#;
    config.tasks = toml::from_str::<toml::Table>(tasks).unwrap()["tasks"].clone().try_into().unwrap();
    let splits = splits(&config).unwrap();
    let told: Vec<String> = splits.violations().iter().map(|violation| violation.to_string()).collect();
    let place = |name: &str| folder.path().join(name).display().to_string();
    assert_eq!(
        told,
        [
            format!("{}: 2 rows have `buy` without `click`, first on line 3", place("train.csv")),
            format!("{}: 1 row has `spent` without `buy`, first on line 4", place("train.csv")),
            format!("{}: 1 row has `buy` without `click`, first on line 2", place("test.csv")),
        ]
    );
    assert_eq!(splits.fit.batch.labels[2], [2.5, 0.0, 3.0], "they are facts, and rows like others");
    let again = encode_file(&splits.encoder, &[test], true, &mut |_| {}).unwrap();
    assert_eq!(again.violations, splits.test.unwrap().violations);
}
