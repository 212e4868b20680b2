//! Files and configurations that cannot be used: each message names the place and the remedy.

use crate::support::{Config, TRAIN, config, splits, write};
use manygate_core::Error;
use manygate_data::{ValidConfig, encode_file};
use manygate_features::{FeatureConfig, Transform};

/// The message for a training file, without its folder, after a change of the configuration.
fn message_with(text: impl AsRef<[u8]>, change: impl FnOnce(&mut Config)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&write(folder.path(), "train.csv", text));
    change(&mut config);
    let message = splits(&config).unwrap_err().to_string();
    message.replace(&format!("{}/", folder.path().display()), "")
}

fn message(text: impl AsRef<[u8]>) -> String {
    message_with(text, |_| {})
}

#[track_caller]
fn starts(message: &str, want: &str) {
    assert!(message.starts_with(want), "{message}");
}

#[test]
fn files_that_are_no_table() {
    starts(&message(""), "train.csv: the file is empty: a header line with the column names is needed");
    starts(&message("day,user,age,tags,tab,time,click\n"), "train.csv: the file has a header and no rows");
    starts(
        &message(format!("{TRAIN}1,ann,5\n")),
        "train.csv:6: the row has 3 values, the header 7: close every quote",
    );
    starts(&message(b"day,us\xff\n1,2\n"), "train.csv:1: a column name is not UTF-8 text: convert");
    starts(
        &message(TRAIN.replace("click", "clicks")),
        "train.csv: column `click`: there is no such column; did you mean `clicks`? (the columns are `day`, `user`",
    );
    let missing = message_with(TRAIN, |config| config.data.train[0].set_file_name("absent.csv"));
    starts(&missing, "absent.csv: cannot open: ");
}

#[test]
fn text_that_is_not_utf8_matters_in_columns_that_are_read() {
    let broken = |field: &str| [TRAIN.as_bytes(), field.as_bytes(), b"\xff,5,,home,1,0\n"].concat();
    starts(
        &message(broken("1,b")),
        "train.csv:6: column `user`: the value is not UTF-8 text: convert the file to UTF-8",
    );
}

#[test]
fn cells_that_cannot_be_used() {
    // The quoted line break makes row 5 begin on line 7.
    let with = |row: &str| message(format!("{TRAIN}1,\"a\nb\",,,home,1,0\n{row}\n"));
    let number = "correct the file, leave the cell empty if it is missing, or add its text to `missing` of the feature";
    starts(
        &with("1,ann,abc,,home,1,0"),
        &format!("train.csv:8: column `age`: `abc` is not a number: {number}"),
    );
    starts(&with("1,ann,NaN,,home,1,0"), "train.csv:8: column `age`: `NaN` is not a finite number");
    starts(&with("2,ann,inf,,home,1,0"), "train.csv:8: column `age`: `inf` is not a finite number");
    starts(
        &with("1,ann,1,,home,1,2"),
        "train.csv:8: column `click`: `2` is not a label of the binary task `click`, which must be 0 or 1",
    );
    starts(&with("1,ann,1,,home,noon,0"), "train.csv:8: column `time`: `noon` is not an integer time");
    starts(
        &with("2,ann,1,,search,1,0"),
        "train.csv:8: column `tab`: no fit row has the scenario `search`, only `home`, `feed`: correct the file, or \
         set `data.unknown_scenario`",
    );
    let ids = |config: &mut Config| {
        let FeatureConfig::Categorical { columns, ids, .. } = &mut config.features[0] else { unreachable!() };
        *columns = vec!["age".into()];
        *ids = Some(50);
        config.features.remove(1);
    };
    starts(
        &message_with(TRAIN, ids),
        "train.csv:3: column `age`: `1000` is not an integer id from 0 to 49: correct the file, raise `ids`",
    );
    let log = |config: &mut Config| {
        let FeatureConfig::Numeric { transform, .. } = &mut config.features[1] else { unreachable!() };
        *transform = Transform::Log1p;
    };
    let text = TRAIN.replace(",30,", ",-3,");
    starts(
        &message_with(text, log),
        "train.csv:4: column `age`: log1p needs a value above -1, not `-3`: correct",
    );
}

#[test]
fn splits_that_leave_nothing() {
    let valid = |valid: ValidConfig| move |config: &mut Config| config.data.valid = valid;
    let day = |value: &[&str]| {
        let values = value.iter().map(|v| v.to_string()).collect();
        valid(ValidConfig::Column { column: "day".into(), values })
    };
    starts(
        &message_with(TRAIN, day(&["3"])),
        "configuration: data.valid: no training row is for validation (`day` in [\"3\"]): choose some rows",
    );
    starts(
        &message_with(TRAIN, day(&["1", "2"])),
        "configuration: data.valid: all training rows are for validation",
    );
    let last = |fraction| valid(ValidConfig::LastFraction(fraction));
    starts(
        &message_with(TRAIN, last(0.1)),
        "configuration: data.valid: no training row is for validation (the last 0.1 of the rows)",
    );
    for fraction in [0.0, 1.0, -0.1, f64::NAN] {
        let want = format!("configuration: data.valid.last_fraction: {fraction} is not a fraction");
        starts(&message_with(TRAIN, last(fraction)), &want);
    }
    starts(
        &message_with(TRAIN, |config| config.data.train.clear()),
        "configuration: data.train: no file is named",
    );
}

#[test]
fn test_files_are_checked_before_a_long_fit_and_by_their_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&write(folder.path(), "train.csv", TRAIN.replace("home,103", "home,noon")));
    config.data.test = vec![write(folder.path(), "test.csv", "user,age\n1,2\n")];
    let message = splits(&config).unwrap_err().to_string();
    assert!(message.contains("test.csv: column `tags`: there is no such column"), "{message}");
}

#[test]
fn encoding_needs_labels_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = splits(&config(&write(folder.path(), "train.csv", TRAIN))).unwrap().encoder;
    let path = write(folder.path(), "new.csv", "tab,tags,age,user\nfeed,y,20,zoe\n");
    let dataset = encode_file(&encoder, std::slice::from_ref(&path), false, &mut |_| {}).unwrap();
    assert_eq!(dataset.batch.ids, [[0]]);
    assert!(dataset.batch.labels.is_empty() && dataset.users.is_empty());
    let error = encode_file(&encoder, &[path], true, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert!(error.to_string().contains("new.csv: column `click`: there is no such column"), "{error}");
    let message = encode_file(&encoder, &[], true, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("no file is named"), "{message}");
}
