//! Data that is damaged, extreme or thin, from file to report: a message that names the place, or a run that ends well.

mod support;

use flate2::Compression;
use flate2::write::GzEncoder;
use std::fmt::Write as _;
use std::io::Write as _;
use support::{Lab, ROWS, SECOND_TASK, csv};

const TRAIN: [&str; 4] = ["train", "config.toml", "--out", "run"];

#[track_caller]
fn refused(lab: &Lab, words: &[&str]) {
    lab.run(&TRAIN).failure(1, words);
    assert!(!lab.path("run").exists(), "a run that cannot begin leaves nothing behind");
}

/// `train.csv` with the text of its row `row`, from 1, replaced.
fn with_row(row: usize, text: &[u8]) -> Vec<u8> {
    let whole = csv(ROWS.0, 1);
    let lines = whole.lines().enumerate().map(|(n, line)| if n == row { text } else { line.as_bytes() });
    lines.flat_map(|line| [line, b"\n"].concat()).collect()
}

#[test]
fn a_file_that_is_cut_short() {
    let lab = Lab::new();
    let whole = csv(ROWS.0, 1);
    // Within the last line, before its last cell.
    let cut = whole.trim_end().rfind(',').unwrap();
    lab.write("train.csv", &whole[..cut]);
    refused(&lab, &["train.csv:401", "6 values", "7"]);
    // A last line without its line feed is whole.
    lab.write("train.csv", whole.trim_end());
    lab.run(&["train", "config.toml", "--out", "whole"]).success();

    lab.write("train.csv", with_row(7, b"\"u1,i1,0,3,1.5,0,0"));
    refused(&lab, &["train.csv:8", "quote"]);

    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(whole.as_bytes()).unwrap();
    let bytes = gzip.finish().unwrap();
    for end in [5, bytes.len() / 3, bytes.len() - 1] {
        lab.write("train.csv", &bytes[..end]);
        refused(&lab, &["train.csv:", "gzip"]);
    }
}

#[test]
fn files_with_hardly_any_rows() {
    let lab = Lab::new();
    let header = "user,item,tab,slot,price,click,buy\n";
    lab.write("test.csv", header);
    refused(&lab, &["test.csv", "no rows", "at least one row"]);

    let one = format!("{header}u1,i1,0,3,1.5,1,0\n");
    lab.write("test.csv", &one);
    let run = lab.run(&["train", "config.toml", "--out", "one"]).success();
    assert!(run.stdout.contains("test"), "{}", run.stdout);
    let click = &lab.read_json("one/metrics.json")["test"]["click"]["all"];
    assert!(click["auc"].is_null() && click["logloss"].is_f64(), "{click}");
    lab.run(&["eval", "one"]).success();

    // One row cannot be both trained on and validated on.
    lab.write("train.csv", &one);
    lab.run(&TRAIN).failure(2, &["data.valid", "no training row is for validation"]);
    lab.write("train.csv", format!("{one}u2,i1,1,3,0.5,0,0\n"));
    lab.configure("last_fraction = 0.2", "last_fraction = 0.5");
    // A scenario that only the test rows have is told; here both rows of training have one each.
    lab.write("test.csv", format!("{header}u1,i1,0,3,1.5,1,0\n"));
    lab.run(&["train", "config.toml", "--out", "two"]).failure(1, &["train.csv:3", "column `tab`", "`1`"]);
    lab.write("train.csv", format!("{one}u2,i1,0,3,0.5,0,0\n"));
    lab.run(&["train", "config.toml", "--out", "two"]).success();
}

#[test]
fn labels_of_one_class_have_no_auc_and_the_choice_falls_back() {
    let lab = Lab::new();
    let constant = |rows: usize, seed: u64, value: &str| -> String {
        let text = csv(rows, seed);
        let header = text.lines().next().unwrap();
        let rows =
            text.lines().skip(1).map(|l| format!("{},{value},{value}\n", l.rsplitn(3, ',').last().unwrap()));
        format!("{header}\n{}", rows.collect::<String>())
    };
    for value in ["0", "1"] {
        lab.write("train.csv", constant(ROWS.0, 1, value));
        lab.write("test.csv", constant(ROWS.1, 2, value));
        let out = format!("all{value}");
        let run = lab.run(&["train", "config.toml", "--out", &out]).success();
        assert!(run.stderr.contains("warning: no selected task has both labels"), "{}", run.stderr);
        assert_eq!(run.stderr.matches("chosen by log loss").count(), 1, "{}", run.stderr);
        let metrics = lab.read_json(&format!("{out}/metrics.json"));
        for part in ["valid", "test"] {
            let click = &metrics[part]["click"]["all"];
            assert!(click["auc"].is_null() && click["logloss"].is_f64(), "{click}");
        }
        // Log loss gets better with every epoch here: the last is chosen.
        assert_eq!(metrics["step"], 10);
        let eval = lab.run(&["eval", &out]).success();
        assert!(!eval.stdout.contains("NaN"), "{}", eval.stdout);
        let report = String::from_utf8(lab.read(&format!("{out}/report.html"))).unwrap();
        assert!(!report.contains("NaN"));
    }
    // One task with an AUC is enough to choose by.
    lab.write("train.csv", csv(ROWS.0, 1));
    let lines = csv(ROWS.0, 1);
    let header = lines.lines().next().unwrap();
    let rows = lines.lines().skip(1).map(|l| format!("{},0\n", l.rsplit_once(',').unwrap().0));
    lab.write("train.csv", format!("{header}\n{}", rows.collect::<String>()));
    let run = lab.run(&["train", "config.toml", "--out", "half"]).success();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

#[test]
fn no_validation_row_that_counts_keeps_the_last_model() {
    let lab = Lab::new();
    // The second task counts clicked rows, and none of the validation rows, which are the last, is.
    let text = csv(ROWS.0, 1);
    let rows = text.lines().enumerate().map(|(n, line)| match n {
        0..=320 => format!("{line}\n"),
        _ => format!("{},0,0\n", line.rsplitn(3, ',').last().unwrap()),
    });
    lab.write("train.csv", rows.collect::<String>());
    let spaced = format!("{SECOND_TASK}space = \"click\"\n");
    lab.configure_all(&[(SECOND_TASK, &spaced), ("epochs = 2", "epochs = 2\nselect_tasks = [\"buy\"]")]);
    let run = lab.run(&TRAIN).success();
    assert!(run.stderr.contains("warning: no validation row counts for a selected task"), "{}", run.stderr);
    assert_eq!(lab.read_json("run/metrics.json")["step"], 10);
}

#[test]
fn a_scenario_that_only_test_rows_have() {
    let lab = Lab::new();
    let mut test = csv(ROWS.1, 2);
    test += "u1,i1,9,3,1.5,0,0\n";
    lab.write("test.csv", test);
    refused(&lab, &["test.csv:152", "column `tab`", "`9`", "data.unknown_scenario"]);
    lab.configure("scenario = \"tab\"", "scenario = \"tab\"\nunknown_scenario = \"0\"");
    lab.run(&TRAIN).success();
}

#[test]
fn a_file_of_five_thousand_columns() {
    let lab = Lab::new();
    let widen = |text: String| -> String {
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        let names = (0..5000).fold(String::new(), |mut names, n| {
            let _ = write!(names, "extra{n},");
            names
        });
        let cells = "7,".repeat(5000);
        lines.fold(format!("{names}{header}\n"), |text, line| text + &cells + line + "\n")
    };
    lab.run(&["train", "config.toml", "--out", "narrow"]).success();
    lab.write("train.csv", widen(csv(ROWS.0, 1)));
    lab.write("test.csv", widen(csv(ROWS.1, 2)));
    lab.run(&TRAIN).success();
    lab.assert_same_run("run", "narrow");
    // All of them are columns that there are, and a message must not name them all.
    lab.configure("columns = [\"price\"]", "columns = [\"prize\"]");
    let refused = lab.run(&["train", "config.toml", "--out", "prize"]);
    assert!(refused.stderr.len() < 2000, "{} bytes of message", refused.stderr.len());
    refused.failure(1, &["`prize`", "did you mean `price`"]);
}

#[test]
fn text_of_another_encoding_or_convention() {
    let lab = Lab::new();
    lab.run(&["train", "config.toml", "--out", "plain"]).success();
    lab.write("train.csv", with_row(7, b"u\xff,i1,0,3,1.5,0,0"));
    refused(&lab, &["train.csv:8", "column `user`", "not UTF-8"]);
    lab.write("train.csv", with_row(0, b"us\xffer,item,tab,slot,price,click,buy"));
    refused(&lab, &["train.csv:1", "not UTF-8"]);
    lab.write("train.csv", with_row(0, b"user,item,tab,slot,price,price,buy"));
    refused(&lab, &["train.csv:1", "column `price`", "twice"]);

    // The byte order mark and the line ends of other systems change nothing.
    let crlf = |text: String| text.replace('\n', "\r\n");
    lab.write("train.csv", format!("\u{feff}{}", crlf(csv(ROWS.0, 1))));
    lab.write("test.csv", format!("\u{feff}{}", csv(ROWS.1, 2)));
    lab.run(&TRAIN).success();
    lab.assert_same_run("run", "plain");
}

#[test]
fn cells_that_are_huge_or_out_of_range() {
    let lab = Lab::new();
    let cases: [(&str, &str, &[&str]); 6] = [
        ("price", "1e39", &["train.csv:8", "column `price`", "`1e39`", "single precision"]),
        ("price", "1e999", &["train.csv:8", "column `price`", "`1e999`"]),
        ("price", "-inf", &["train.csv:8", "column `price`", "`-inf`"]),
        ("slot", "99999999999999999999", &["train.csv:8", "column `slot`"]),
        ("click", "NaN", &["train.csv:8", "column `click`", "0 or 1"]),
        ("click", "", &["train.csv:8", "column `click`", "0 or 1"]),
    ];
    for (column, value, words) in cases {
        lab.spoil(7, column, value);
        refused(&lab, words);
    }
    let huge = "9".repeat(1 << 20);
    lab.spoil(7, "price", &huge);
    let told = lab.run(&TRAIN);
    assert!(told.stderr.len() < 1000, "{} bytes of message", told.stderr.len());
    told.failure(1, &["train.csv:8", "column `price`"]);
    // As a value of a category it is one like any other, and so are the largest numbers.
    lab.spoil(7, "user", &huge);
    lab.run(&["train", "config.toml", "--out", "huge"]).success();
    lab.spoil(7, "price", "3e38");
    lab.run(&["train", "config.toml", "--out", "large"]).success();
}
