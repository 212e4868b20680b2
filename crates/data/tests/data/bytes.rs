//! Whatever a file holds, reading it ends in data or an error, never in a panic.

use crate::support::{TRAIN, config, gzip, splits, write};
use manygate_data::CsvReader;
use proptest::prelude::*;

/// Bytes among which those that mean something to a CSV parser are frequent.
fn csv_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => prop::sample::select(b",,\"\"\n\n\r|01a".to_vec()),
        1 => any::<u8>(),
    ];
    prop::collection::vec(byte, 0..200)
}

/// Reads a file to its end or first error; line numbers must never fall.
fn read_all(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let Ok(mut reader) = CsvReader::open(&write(folder.path(), "a.csv", bytes)) else { return };
    let mut last = reader.line();
    while let Ok(true) = reader.advance() {
        assert!(reader.line() >= last);
        last = reader.line();
        let _ = reader.cell(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_files(bytes in csv_bytes()) {
        read_all(&bytes);
        read_all(&[&[0x1f, 0x8b], bytes.as_slice()].concat());
        read_all(&gzip(&bytes));
    }

    #[test]
    fn arbitrary_rows_in_a_training_file(bytes in csv_bytes(), cut in 0..TRAIN.len()) {
        let folder = tempfile::tempdir().unwrap();
        let mut text = TRAIN.as_bytes().to_vec();
        text.splice(cut..cut, bytes);
        if let Ok(splits) = splits(&config(&write(folder.path(), "train.csv", text))) {
            splits.fit.batch.validate().unwrap();
            splits.valid.batch.validate().unwrap();
        }
    }
}
