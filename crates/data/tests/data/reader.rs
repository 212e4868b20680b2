//! The CSV reader: formats of files and true line numbers.

use crate::support::{gzip, write, zstd};
use manygate_data::CsvReader;

/// The line and first value of every record.
fn records(bytes: &[u8]) -> Vec<(u64, String)> {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = CsvReader::open(&write(folder.path(), "a.csv", bytes)).unwrap();
    let mut records = Vec::new();
    while reader.advance().unwrap() {
        records.push((reader.line(), reader.cell(0).unwrap().to_owned()));
    }
    records
}

fn at(records: &[(u64, &str)]) -> Vec<(u64, String)> {
    records.iter().map(|(line, value)| (*line, (*value).to_owned())).collect()
}

#[test]
fn lines_are_those_of_the_file() {
    assert_eq!(records(b"a,b\n1,2\n3,4\n"), at(&[(2, "1"), (3, "3")]));
    assert_eq!(records(b"a,b\n1,2\n3,4"), at(&[(2, "1"), (3, "3")]), "no line feed at the end");
    assert_eq!(records(b"a,b\r\n1,2\r\n3,4\r\n"), at(&[(2, "1"), (3, "3")]), "CRLF");
    assert_eq!(records(b"a,b\n\n\n1,2\n\n3,4\n\n"), at(&[(4, "1"), (6, "3")]), "blank lines");
    assert_eq!(
        records(b"a,b\n\"x\ny\",2\n3,\"\n\n\"\n5,6\n"),
        at(&[(2, "x\ny"), (4, "3"), (7, "5")]),
        "quoted"
    );
    assert_eq!(records(b"a\n1\n\"x\n"), at(&[(2, "1"), (3, "x\n")]), "an open quote at the end");
    assert_eq!(records(b"\xef\xbb\xbfa,b\n1,2\n"), at(&[(2, "1")]), "a byte order mark");
}

#[test]
fn compression_is_known_by_the_first_bytes() {
    let text = b"a,b\n1,2\n\n3,4\n";
    for compress in [gzip, zstd] {
        assert_eq!(records(&compress(text)), records(text));
        let two_parts = [compress(b"a,b\n1,2\n"), compress(b"\n3,4\n")].concat();
        assert_eq!(records(&two_parts), records(text));
    }
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9][..], &zstd(text)].concat();
    assert_eq!(records(&skipped), records(text), "a frame to skip");
}

/// The error that ends the reading of a file.
fn failure(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", bytes);
    let error = match CsvReader::open(&path) {
        Err(error) => error,
        Ok(mut reader) => loop {
            match reader.advance() {
                Ok(more) => assert!(more, "the file must not end quietly"),
                Err(error) => break error,
            }
        },
    };
    error.to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn compressed_files_that_are_cut_short_or_altered() {
    // Numbers that do not repeat, so that the first half is more than a block.
    let text: String =
        (0..200_000u64).map(|i| format!("{},{i}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let text = format!("a,b\n{text}");
    for (name, compressed) in [("gzip", gzip(text.as_bytes())), ("zstd", zstd(text.as_bytes()))] {
        let half = failure(&compressed[..compressed.len() / 2]);
        let line: u64 = half.strip_prefix("a.csv:").unwrap().split(':').next().unwrap().parse().unwrap();
        assert!(line > 1000, "{half}");
        assert!(half.contains(&format!("the {name} data ends or breaks here")), "{half}");
        assert!(half.contains("get the file anew"), "{half}");
        let mut altered = compressed.clone();
        // In the checksum: all rows were there.
        *altered.iter_mut().rev().nth(5 * usize::from(name == "gzip")).unwrap() ^= 1;
        assert!(failure(&altered).contains(&format!("the {name} data ends or breaks here")));
        let with_more = [&compressed[..], b"more"].concat();
        if name == "zstd" {
            assert!(failure(&with_more).contains("the zstd data ends or breaks here"));
        }
    }
    // A frame that asks for a window of 2 GiB, and one that needs a dictionary.
    for header in [&[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3][..], &[0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 7]] {
        let message = failure(header);
        assert!(message.starts_with("a.csv:1: the zstd data cannot be read ("), "{message}");
        assert!(message.contains("compress it without a dictionary"), "{message}");
    }
}

#[test]
fn a_small_file_cannot_fill_the_memory() {
    let long = "x".repeat(20 << 20);
    for bytes in [gzip(format!("a\n1\n{long}").as_bytes()), zstd(format!("a\n1\n\"{long}").as_bytes())] {
        assert!(bytes.len() < 100_000);
        let message = failure(&bytes);
        assert!(message.starts_with("a.csv:3: the row that begins here is longer than 16 MiB"), "{message}");
    }
    let message = failure(&gzip(&b"\n".repeat(20 << 20)));
    assert!(message.starts_with("a.csv:1: the row that begins here is longer than 16 MiB"), "{message}");
    let message = failure(",".repeat(1 << 17).as_bytes());
    assert!(message.starts_with("a.csv:1: 131073 columns are more than 65536"), "{message}");
}

#[test]
fn long_files_keep_their_line_numbers() {
    let mut text = String::from("a,b\n");
    for row in 0..20_000 {
        text.push_str(if row % 3 == 0 { "\"two\nlines\",x\r\n" } else { "one line,y\n" });
    }
    let mut line = 2;
    for (row, (found, _)) in records(text.as_bytes()).into_iter().enumerate() {
        assert_eq!(found, line);
        line += if row % 3 == 0 { 2 } else { 1 };
    }
    assert_eq!(line, 2 + 20_000 + 6_667);
}

#[test]
fn columns_are_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let reader = CsvReader::open(&write(folder.path(), "a.csv", "user_id,tab,tab\n1,2,3\n")).unwrap();
    assert_eq!(reader.column("user_id").unwrap(), 0);
    let message = reader.column("usr_id").unwrap_err().to_string();
    assert!(
        message.ends_with(
            "a.csv: column `usr_id`: there is no such column; did you mean `user_id`? (the columns are `user_id`, \
             `tab`, `tab`)"
        ),
        "{message}"
    );
    let many: Vec<String> = (0..5000).map(|i| format!("c{i}")).collect();
    let text = format!("{0}\n{0}\n", many.join(","));
    let wide = CsvReader::open(&write(folder.path(), "wide.csv", text)).unwrap();
    assert_eq!(wide.column("c4999").unwrap(), 4999);
    let message = wide.column("age").unwrap_err().to_string();
    assert!(message.ends_with("`c38`, `c39`, and 4960 more)"), "{message}");
    let message = reader.column("tab").unwrap_err().to_string();
    assert!(message.contains("the header has this column twice"), "{message}");
}
