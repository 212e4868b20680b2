//! Several files: patterns of names, and columns found by name in each.

use std::path::Path;

use crate::support::{Config, TRAIN, config, gzip, splits, write, zstd};
use manygate_data::{ValidConfig, encode_file};

/// Three files of the same four rows, written in another order than that of their names.
fn days(folder: &Path) -> Config {
    let text = TRAIN.as_bytes();
    write(folder, "day-3.csv.zst", zstd(text));
    write(folder, "day-1.csv", text);
    // Other columns, in another order.
    let mut turned = String::new();
    for (number, line) in TRAIN.replace("\"x,y\"", "x").lines().enumerate() {
        let cells: Vec<&str> = line.split(',').rev().collect();
        turned += &format!("{},{}\n", cells.join(","), if number == 0 { "more" } else { "?" });
    }
    write(folder, "day-2.csv.gz", gzip(turned.as_bytes()));
    write(folder, ".day-0.csv", "hidden");
    std::fs::create_dir(folder.join("day-4")).unwrap();
    config(&folder.join("day-*"))
}

fn message(config: &Config, folder: &Path) -> String {
    splits(config).unwrap_err().to_string().replace(&format!("{}/", folder.display()), "")
}

#[test]
fn a_pattern_stands_for_its_files_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = days(folder.path());
    let splits_of = splits(&config).unwrap();
    assert_eq!((splits_of.fit.batch.rows, splits_of.valid.batch.rows), (9, 3));
    // The middle file has one tag fewer.
    assert_eq!(splits_of.fit.batch.bags[0].offsets, [0, 2, 3, 3, 4, 5, 5, 7, 8, 8]);
    assert_eq!(splits_of.fit.batch.ids[0], [1, 2, 1, 1, 2, 1, 1, 2, 1]);
    let pattern = [folder.path().join("day-?.csv*")];
    let all = encode_file(&splits_of.encoder, &pattern, true, &mut |_| {}).unwrap();
    assert_eq!(all.batch.rows, 12);

    config.data.test = vec![folder.path().join("day-[12].csv*")];
    config.data.valid = ValidConfig::LastFraction(0.25);
    let fitted = splits(&config).unwrap();
    assert_eq!(fitted.test.unwrap().batch.rows, 8);
    assert_eq!(fitted.valid.batch.rows, 3);

    // A name that exists is no pattern.
    config.data.test = vec![write(folder.path(), "day[1].csv", TRAIN)];
    assert_eq!(splits(&config).unwrap().test.unwrap().batch.rows, 4);
}

#[test]
fn patterns_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = days(folder.path());
    config.data.test = vec![folder.path().join("month-*.csv")];
    assert!(
        message(&config, folder.path())
            .starts_with("configuration: data.test: no file matches `month-*.csv`: correct the pattern")
    );
    config.data.test = vec![folder.path().join("day-[1.csv")];
    let wrong = message(&config, folder.path());
    assert!(
        wrong.starts_with("configuration: data.test: `day-[1.csv` is no pattern of file names"),
        "{wrong}"
    );
    config.data.test.clear();
    config.data.train.push(folder.path().join("day-1.csv"));
    let twice = message(&config, folder.path());
    assert!(twice.starts_with("configuration: data.train: `day-1.csv` is named twice"), "{twice}");
}

#[test]
fn errors_name_the_file_of_the_pattern() {
    let folder = tempfile::tempdir().unwrap();
    let config = days(folder.path());
    let place = |name: &str, text: &str, want: &str| {
        write(folder.path(), name, text);
        let message = message(&config, folder.path());
        assert!(message.starts_with(want), "{message}");
    };
    let spoilt = TRAIN.replace("1000", "old");
    place("day-2.csv.gz", &spoilt, "day-2.csv.gz:3: column `age`: `old` is not a number");
    // Before any row is read.
    place("day-3.csv.zst", "user,age\n1,2\n", "day-3.csv.zst: column `tags`: there is no such column");
}
