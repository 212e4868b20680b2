//! Whatever a file holds, reading it ends in data or an error, never in a panic.

use crate::support::{TRAIN, config, gzip, splits, write, zstd};
use manygate_data::{CsvReader, encode_file};
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
        read_all(&[&[0x28, 0xb5, 0x2f, 0xfd], bytes.as_slice()].concat());
        read_all(&zstd(&bytes));
    }

    #[test]
    fn compressed_files_with_flipped_bits(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = TRAIN.repeat(50);
        for mut bytes in [gzip(text.as_bytes()), zstd(text.as_bytes())] {
            for (at, bit) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= 1u8 << bit;
            }
            read_all(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            read_all(&bytes);
        }
    }

    #[test]
    fn arbitrary_rows_in_a_training_file(bytes in csv_bytes(), cut in 0..TRAIN.len()) {
        let folder = tempfile::tempdir().unwrap();
        let mut text = TRAIN.as_bytes().to_vec();
        text.splice(cut..cut, bytes);
        for compress in [<[u8]>::to_vec, gzip, zstd] {
            let path = write(folder.path(), "train.csv", compress(&text));
            if let Ok(splits) = splits(&config(&path)) {
                splits.fit.batch.validate().unwrap();
                splits.valid.batch.validate().unwrap();
                if let Ok(again) = encode_file(&splits.encoder, &[path], true, &mut |_| {}) {
                    again.batch.validate().unwrap();
                }
            }
        }
    }
}
